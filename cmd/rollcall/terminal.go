package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/printable"
)

// terminal is whoever sits before the command, or nobody.
type terminal struct {
	in     io.Reader
	person bool // reads questions and answers them
}

func stdin() *terminal { return &terminal{os.Stdin, isTerminal(os.Stdin)} }

// isTerminal reports whether f is a character device that is not the null
// device.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// confirm returns what asks a question on stderr; nil if the answer is yes
// already.
func (t *terminal) confirm(env cli.Env, yes bool) func(question string) error {
	if yes {
		return nil
	}
	return func(question string) error {
		if !t.person {
			return cli.Usagef("%s nobody is there to confirm it: give --yes, or look first with --dry-run", question)
		}
		_, _ = fmt.Fprintf(env.Stderr, "%s [y/N] ", printable.Text(question))
		answer, _ := bufio.NewReader(t.in).ReadString('\n')
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return nil
		}
		return errors.New("not confirmed: nothing was done")
	}
}
