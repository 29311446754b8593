//go:build ignore

// Command skips reads the output of "go test -json" and exits 1 when a test was
// skipped because something is absent, and says which and why.
//
// Two kinds of skips are no lack: a test that runs only when asked for ("set
// ROLLCALL_… to run it"), and the half of a pair that is for users with fewer
// rights than this one.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

var (
	fine  = regexp.MustCompile(`set ROLLCALL_|this user may`)
	frame = regexp.MustCompile(`(?m)^\s*(=== |--- ).*$`)
)

func main() {
	reasons, skipped := map[string]string{}, []string{}
	for _, path := range os.Args[1:] {
		f, err := os.Open(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, "skips:", err)
			os.Exit(2)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var e struct{ Action, Package, Test, Output string }
			if json.Unmarshal(lines.Bytes(), &e) != nil || e.Test == "" {
				continue
			}
			name := e.Package + "." + e.Test
			switch e.Action {
			case "output":
				reasons[name] += e.Output
			case "skip":
				if !fine.MatchString(reasons[name]) {
					skipped = append(skipped, name)
				}
			}
		}
		if err := lines.Err(); err != nil {
			fmt.Fprintln(os.Stderr, "skips:", path, err)
			os.Exit(2)
		}
		_ = f.Close()
	}
	slices.Sort(skipped)
	for _, name := range slices.Compact(skipped) {
		reason := frame.ReplaceAllString(reasons[name], "")
		fmt.Printf("skipped: %s: %s\n", name, strings.Join(strings.Fields(reason), " "))
	}
	if len(skipped) > 0 {
		os.Exit(1)
	}
}
