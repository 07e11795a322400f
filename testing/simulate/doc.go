// Package simulate holds no program: its tests run the daemon, from the bytes of
// the socketmap protocol down to the database file, through months of a seeded
// history, by the clock of a testing/synctest bubble.
//
// A history (history_test.go) is a list of events: domains publish, change and
// withdraw policies, keys and mail hosts, resolvers and policy hosts fail, the
// disk refuses writes, the process is killed. world_test.go applies them to
// testing/lab and process_test.go to the daemon. oracle_test.go decides after
// each reply which answers docs/behaviour.md allows; it shares no code with the
// daemon. A history that fails is made as short as possible and printed in a
// form that testdata keeps.
package simulate
