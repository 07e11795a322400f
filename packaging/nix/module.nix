# services.tlspolicyd.enable = true, on NixOS 25.11 and later: the units of the
# package, its user, and Postfix set up to ask. A validating resolver on this host
# is set up elsewhere, e.g. by services.unbound.enable and
# networking.nameservers = [ "127.0.0.1" ].
{ config, lib, pkgs, ... }:

let
  cfg = config.services.tlspolicyd;
  toml = pkgs.formats.toml { };
in
{
  options.services.tlspolicyd = {
    enable = lib.mkEnableOption "tlspolicyd, TLS policies for Postfix";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      description = "The package to use.";
    };
    settings = lib.mkOption {
      inherit (toml) type;
      default = { };
      example = { override."broken.example" = "skip"; };
      description = "tlspolicyd.toml(5).";
    };
    configurePostfix = lib.mkOption {
      type = lib.types.bool;
      default = config.services.postfix.enable;
      description = "Have Postfix (3.10 or later) ask tlspolicyd.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    environment.etc."tlspolicyd/tlspolicyd.toml".source = toml.generate "tlspolicyd.toml" cfg.settings;
    systemd.packages = [ cfg.package ];
    systemd.tmpfiles.packages = [ cfg.package ];
    users.users.tlspolicyd = { isSystemUser = true; group = "tlspolicyd"; };
    users.groups.tlspolicyd = { };
    systemd.sockets.tlspolicyd.wantedBy = [ "sockets.target" ];
    systemd.services.tlspolicyd = {
      wantedBy = [ "multi-user.target" ];
      reloadTriggers = [ config.environment.etc."tlspolicyd/tlspolicyd.toml".source ];
    };
    services.postfix.settings.main = lib.mkIf cfg.configurePostfix {
      smtp_dns_support_level = "dnssec";
      smtp_tls_security_level = lib.mkDefault "dane";
      smtp_tls_policy_maps = [ "socketmap:unix:/run/tlspolicyd/socketmap.sock:postfix-tlsrpt" ];
    };
  };
}
