# "nix-instantiate --eval --strict check.nix" evaluates the module without
# nixpkgs: lib and pkgs here have what the module uses of them.
let
  lib = {
    mkEnableOption = description: { inherit description; default = false; };
    mkOption = option: option;
    mkIf = condition: value: if condition then value else { };
    mkDefault = value: value;
    types = { package = "package"; bool = "bool"; };
    licenses.mit = "MIT";
    platforms.linux = [ "x86_64-linux" ];
  };
  pkgs = {
    formats.toml = _: { type = "toml"; generate = name: value: { inherit name value; }; };
    callPackage = file: arguments: import file ({ inherit lib; buildGoModule = package: package; } // arguments);
  };
  evaluated = enable:
    let
      module = import ./module.nix { inherit config lib pkgs; };
      config = {
        services.postfix.enable = true;
        services.tlspolicyd = builtins.mapAttrs (_: option: option.default) module.options.services.tlspolicyd // { inherit enable; };
        inherit (module.config) environment;
      };
    in
    module.config;
  on = evaluated true;
in
assert evaluated false == { };
assert (builtins.head on.systemd.packages).pname == "tlspolicyd";
assert on.systemd.services.tlspolicyd.wantedBy == [ "multi-user.target" ];
assert on.services.postfix.settings.main.smtp_dns_support_level == "dnssec";
builtins.deepSeq on "ok"
