# pkgs.callPackage ./package.nix { } in an unpacked "make dist". A checkout has no
# vendor/ and needs a vendorHash.
{ lib, buildGoModule, src ? ../.., version ? "1.0.0", vendorHash ? null }:

buildGoModule {
  pname = "tlspolicyd";
  inherit version src vendorHash;
  subPackages = [ "cmd/tlspolicyd" ];
  env.CGO_ENABLED = 0;
  ldflags = [ "-X main.version=${version}" ];
  installPhase = ''
    runHook preInstall
    SOURCE_DATE_EPOCH=''${SOURCE_DATE_EPOCH:-0} DESTDIR= PREFIX=$out SYSCONFDIR=$out/etc INIT=systemd APPARMOR=no \
      packaging/install.sh $GOPATH/bin/tlspolicyd
    runHook postInstall
  '';
  meta = {
    description = "TLS policies for Postfix: DANE and MTA-STS";
    license = lib.licenses.mit;
    mainProgram = "tlspolicyd";
    platforms = lib.platforms.linux;
  };
}
