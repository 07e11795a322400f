#!/bin/sh
# Runs inside a scratch root with promtool and jq (see contrib/check.sh): the alert
# rules and their tests, the dashboard's structure and expressions, and both held
# against docs/metrics.md and against the daemon.
set -eu

rules=/src/contrib/prometheus
dashboard=/src/contrib/grafana/tlspolicyd.json
documented=/src/docs/metrics.md

die() {
	printf 'metrics: %s\n' "$*" >&2
	exit 1
}

check_rules() {
	promtool check rules --lint-fatal $rules/alerts.yml >/tmp/out 2>&1 || die "$(cat /tmp/out)"
	promtool test rules $rules/alerts_test.yml >/tmp/out 2>&1 || die "$(cat /tmp/out)"
	promtool check config $rules/prometheus.yml >/tmp/out 2>&1 || die "$(cat /tmp/out)"

	# An alert without a test that makes it fire is a defect.
	sed -n 's/^ *- alert: //p' $rules/alerts.yml | sort >/tmp/alerts
	awk '$1 == "alertname:" { name = $2 } $1 == "exp_labels:" || ($1 == "-" && $2 == "exp_labels:") { print name }' \
		$rules/alerts_test.yml | sort -u >/tmp/tested
	untested=$(comm -23 /tmp/alerts /tmp/tested)
	[ -z "$untested" ] || die "no test makes these fire: $untested"
	echo "ok   $(wc -l </tmp/alerts) alert rules and their tests ($(promtool --version | head -n 1 | cut -d ' ' -f 3))"
}

# Each panel has an id of its own, a title, a description and its place, which no
# other one overlaps; each expression is PromQL.
check_dashboard() {
	jq -e '[.panels[].id] | length == (unique | length)' $dashboard >/dev/null || die "dashboard: panel ids repeat"
	jq -e 'all(.panels[]; .title != "" and (.type == "row" or .description != ""))' $dashboard >/dev/null ||
		die "dashboard: a panel without title or description"
	jq -e '[.panels[] | .gridPos as $g | range($g.x; $g.x + $g.w) as $x | range($g.y; $g.y + $g.h) as $y | [$x, $y]] |
		length == (unique | length) and all(.[]; .[0] < 24)' $dashboard >/dev/null || die "dashboard: panels overlap"
	jq -e 'all(.panels[].targets[]?; .expr | contains("$instance"))' $dashboard >/dev/null ||
		die "dashboard: an expression does not follow the variable instance"
	jq '{groups: [{name: "dashboard", rules: [.panels[].targets[]? | .expr |
		gsub("\\$__rate_interval"; "5m") | gsub("\\$instance"; ".*")] |
		to_entries | map({record: "panel:\(.key)", expr: .value})}]}' $dashboard >/tmp/dashboard.json
	promtool check rules --lint=none /tmp/dashboard.json >/tmp/out 2>&1 || die "dashboard: $(cat /tmp/out)"
	echo "ok   dashboard: $(jq '[.panels[] | select(.type != "row")] | length' $dashboard) panels, $(jq '.groups[0].rules | length' /tmp/dashboard.json) expressions"
}

# names FILE...: the metrics in it, histograms without their suffixes.
names() {
	grep -oh 'tlspolicyd_[a-z0-9_]*' "$@" | sed 's/_\(bucket\|sum\)$//' | sort -u
}

check_names() {
	[ -f $documented ] || die "docs/metrics.md is missing"
	names $documented >/tmp/documented
	jq -r '.. | .expr? // empty, (.definition? // empty)' $dashboard >/tmp/expressions
	sed -n '/expr:/,/for:\|labels:/p' $rules/alerts.yml >>/tmp/expressions
	sed -n 's/.*series: //p' $rules/alerts_test.yml >>/tmp/expressions
	names /tmp/expressions | sed 's/_count$//' | sort -u >/tmp/used
	unknown=$(comm -23 /tmp/used /tmp/documented)
	[ -z "$unknown" ] || die "not in docs/metrics.md: $unknown"

	# A label in a selector must be in the metric's line of docs/metrics.md.
	grep -oE 'tlspolicyd_[a-z0-9_]*\{[^}]*\}' /tmp/expressions | while IFS='{' read -r name selector; do
		name=$(echo "$name" | sed 's/_\(bucket\|sum\|count\)$//')
		for label in $(echo "$selector" | grep -oE '[a-z_]+(=|!)' | tr -d '=!'); do
			case $label in instance | job | le) continue ;; esac
			grep "\`$name\`" $documented | grep -q "\`$label\`" ||
				die "docs/metrics.md: $name has no label $label"
		done
	done
	echo "ok   $(wc -l </tmp/used) metrics in use, all in docs/metrics.md"
}

# scrape: what the daemon reports to Prometheus.
scrape() {
	perl -MIO::Socket::INET -e '
		my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:9461", Timeout => 5) or exit 1;
		print $s "GET /metrics HTTP/1.0\r\n\r\n";
		local $/; my ($head, $body) = split /\r\n\r\n/, <$s>, 2; print $body' >/tmp/scrape
	grep -o '^tlspolicyd_[a-z0-9_]*' /tmp/scrape | sed 's/_\(bucket\|sum\|count\)$//' | sort -u >/tmp/served
	[ -z "$(comm -23 /tmp/used /tmp/served)" ]
}

# The same against the daemon itself: a series that appears only after something
# has gone wrong would make an alert blind until then.
check_daemon() {
	printf '[listen]\nhttp = "127.0.0.1:9461"\n[dns]\nservers = ["127.0.0.1:5"]\n[share]\nurl = "unix:/tmp/none.sock"\n' >/tmp/tlspolicyd.toml
	RUNTIME_DIRECTORY=/run STATE_DIRECTORY=/tmp /check/tlspolicyd serve --config /tmp/tlspolicyd.toml >/tmp/daemon.log 2>&1 &
	tries=0
	until scrape; do
		tries=$((tries + 1))
		[ $tries -lt 1200 ] || die "the daemon does not serve: $(comm -23 /tmp/used /tmp/served) $(cat /tmp/daemon.log)"
		sleep 0.1
	done
	promtool check metrics </tmp/scrape >/tmp/out 2>&1 || die "$(cat /tmp/out)"
	undocumented=$(comm -23 /tmp/served /tmp/documented)
	[ -z "$undocumented" ] || die "the daemon serves what docs/metrics.md lacks: $undocumented"
	echo "ok   the daemon serves all of them from the start, and nothing undocumented"
}

check_rules
check_dashboard
check_names
check_daemon
