// Command bench prints the figures of docs/figures.md that concern the whole
// daemon: the real one, in a process of its own, asked over its real sockets.
// What it is held against (an echo server) and what it lives in (the lab's
// internet) are processes of their own as well. It needs Linux, for /proc.
//
//	go run ./testing/bench [-daemon bin/tlspolicyd] [-short] TABLE...
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are how long and how much is measured.
type settings struct {
	daemon  string        // the program
	turns   int           // of each contestant
	turn    time.Duration // one of them
	domains int           // in the large cache
	hot     int           // of these, asked for again and again
	idle    int           // connections
	cold    int           // new domains of each kind
	silent  int           // lookups of another client
}

// tables are what can be printed, in the order in which it is.
var tables = []struct {
	name, about string
	print       func(context.Context, settings) error
}{
	{"hits", "cached lookups beside an echo server", hits},
	{"million", "start, memory, disk and speed with a large cache", million},
	{"idle", "memory of idle connections", idle},
	{"cold", "first lookups, with and without policy hosts that never answer", cold},
	{"instant", "first lookups, with DNS and policy hosts that answer at once", instant},
	{"silent", "cached lookups while another client asks for names whose servers are silent", silent},
	{"refresh", "what the refresher costs", refresh},
}

func main() {
	s := settings{turns: 9, turn: 500 * time.Millisecond, domains: 1_000_000, hot: 50_000, idle: 10_000, cold: 2_000, silent: 5_000}
	flag.StringVar(&s.daemon, "daemon", "bin/tlspolicyd", "the tlspolicyd to measure")
	flag.IntVar(&s.turns, "turns", s.turns, "turns of each contestant; medians count")
	flag.DurationVar(&s.turn, "turn", s.turn, "how long each of them is")
	flag.IntVar(&s.cold, "cold", s.cold, "new domains of each kind")
	short := flag.Bool("short", false, "less of everything, to see that it works")
	flag.Usage = usage
	flag.Parse()
	if *short {
		s.turns, s.turn, s.domains, s.hot, s.cold, s.silent = 1, 100*time.Millisecond, 100_000, 20_000, 200, 500
	}
	if len(os.Args) > 1 {
		if run := roles[os.Args[1]]; run != nil {
			exit(run(os.Args[2:]))
		}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	exit(run(ctx, s, flag.Args()))
}

func run(ctx context.Context, s settings, names []string) error {
	for _, t := range tables {
		if len(names) > 0 && !slices.Contains(names, t.name) {
			continue
		}
		began := time.Now()
		fmt.Printf("## %s: %s\n\n", t.name, t.about)
		if err := t.print(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		fmt.Printf("\n(%s; %v)\n\n", strings.Join(append([]string{"go run ./testing/bench"}, t.name), " "), time.Since(began).Round(time.Second))
	}
	return nil
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func usage() {
	fmt.Fprintln(flag.CommandLine.Output(), "bench prints tables of figures; without a name all of them:")
	for _, t := range tables {
		fmt.Fprintf(flag.CommandLine.Output(), "  %-8s %s\n", t.name, t.about)
	}
	flag.PrintDefaults()
}
