#!/bin/sh
# Runs inside a scratch root with Postfix (see contrib/check.sh): what
# docs/migration.md describes, as far as it can be done without the other two
# projects.
set -eu

guide=/src/docs/migration.md
daemon=/check/tlspolicyd

die() {
	printf 'guide: %s\n' "$*" >&2
	exit 1
}

# line PATTERN: the one line of the guide's code blocks that matches.
line() {
	sed -n '/^```/,/^```/p' $guide | grep -e "$1" >/tmp/line || die "no line matches $1"
	[ "$(wc -l </tmp/line)" = 1 ] || die "several lines match $1"
	cat /tmp/line
}

# The pipelines that make a list of domains out of a mail log, up to the daemon.
check_mail_log() {
	cat >/var/log/mail.log <<-'LOG'
		Nov 23 05:22:14 mx postfix/smtp[1]: 83D2: to=<a@plain.test>, relay=mx.sink.test[192.0.2.1]:25, delay=0, dsn=2.0.0, status=sent (250 2.0.0 Ok)
		Nov 23 05:22:14 mx postfix/smtp[1]: 83D3: to=<b@alias.test>, orig_to=<c@local.test>, relay=mx.sink.test[192.0.2.1]:25, status=sent (250 2.0.0 Ok)
		Nov 23 05:22:14 mx postfix/smtp[1]: 83D4: to=<a@[192.0.2.7]>, relay=192.0.2.7[192.0.2.7]:25, status=sent (250 2.0.0 Ok)
		Nov 23 05:22:14 mx postfix/smtp[1]: 83D5: to=<a@never.test>, relay=none, dsn=4.4.1, status=deferred (connect to mx)
		Nov 23 05:22:14 mx postfix/virtual[1]: 83D6: to=<a@local.test>, relay=virtual, status=sent (delivered)
	LOG
	gzip -c /var/log/mail.log >/var/log/mail.log.1.gz
	grep 'postfix/smtp\[' /var/log/mail.log | sed 's/^.*\]: \(83\)/\1/' >/tmp/journal
	for source in zgrep journalctl; do
		command=$(line "^$source " | sed 's/ | tlspolicyd cache warm -$//')
		got=$(eval "journalctl() { cat /tmp/journal; }; $command" | tr '\n' ' ')
		[ "$got" = "alias.test plain.test " ] || die "$source: lists \"$got\""
	done
	echo "ok   domains out of the mail log and the journal"
}

# The way there and back in main.cf, with a table of one's own.
check_main_cf() {
	before='texthash:/etc/postfix/tls_policy, socketmap:inet:127.0.0.1:8642:QUERY'
	postconf -e "smtp_tls_policy_maps = $before"
	sh -eu -c "$(line '^postconf smtp_tls_policy_maps | tee')" >/dev/null
	sh -eu -c "cd /src; $(line '^grep .*postconf -e')"
	[ "$(postconf -h smtp_tls_policy_maps)" = socketmap:unix:run/tlspolicyd/socketmap.sock:postfix ] ||
		die "the fragment is not in force"
	sh -eu -c "$(line '^postconf -e .smtp_tls_policy_maps = texthash')"
	sh -eu -c "$(line '^postconf -e .*before')"
	[ "$(postconf -h smtp_tls_policy_maps)" = "$before" ] || die "the way back leads elsewhere"
	echo "ok   main.cf there and back"
}

# Each key and value of ours in the tables, and each whole example, is accepted.
check_settings() {
	"$daemon" config show --config /dev/null >/tmp/defaults
	grep '^|' $guide | cut -d '|' -f 3- | grep -o '`\(listen\|dns\|fetch\|cache\|refresh\|policy\|log\)\.[a-z_]*[^`]*`' | tr -d '`' | sort -u >/tmp/settings
	[ -s /tmp/settings ] || die "no settings in the tables"
	while IFS= read -r setting; do
		key=${setting%% *}
		sed -n "/^\[${key%%.*}\]/,/^\[/p" /tmp/defaults | grep -q "^${key#*.} = " || die "no setting is called $key"
		case $setting in *=*) ;; *) continue ;; esac
		printf '[%s]\n%s\n' "${key%%.*}" "${setting#*.}" >/tmp/one.toml
		"$daemon" config check --config /tmp/one.toml >/tmp/out 2>&1 || die "$setting: $(cat /tmp/out)"
	done </tmp/settings
	sed -n '/^```toml/,/^```$/p' $guide | grep -v '^```' >/tmp/example.toml
	"$daemon" config check --config /tmp/example.toml >/tmp/out 2>&1 || die "$(cat /tmp/out)"
	echo "ok   $(wc -l </tmp/settings) settings"
}

check_links() {
	for file in docs/migration.md contrib/README.md contrib/container/README.md; do
		grep -o '](\([^)#]*\)' "/src/$file" | sed 's/](//' | grep -v '^https*:' >/tmp/links || true
		while IFS= read -r link; do
			[ -e "/src/$(dirname "$file")/$link" ] || die "$file: $link does not exist"
		done </tmp/links
	done
	echo "ok   links"
}

check_mail_log
check_main_cf
check_settings
check_links
