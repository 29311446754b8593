package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rollcall-platform/rollcall/internal/printable"
)

// Terminal is whoever sits before the command, or nobody.
type Terminal struct {
	In     io.Reader
	Person bool // reads questions and answers them
}

// Stdin is whoever sits before the process's standard input.
func Stdin() *Terminal { return &Terminal{os.Stdin, IsTerminal(os.Stdin)} }

// IsTerminal reports whether f is a character device that is not the null
// device.
func IsTerminal(f any) bool {
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

// Confirm returns what asks a question on stderr before something ends for good; nil
// if the answer is yes already. Where nobody can answer, the question is a usage
// error that says what to do: --yes, or else.
func (t *Terminal) Confirm(env Env, yes bool, orElse string) func(question string) error {
	if yes {
		return nil
	}
	return func(question string) error {
		if !t.Person {
			return Usagef("%s nobody is there to confirm it: give --yes%s", question, orElse)
		}
		_, _ = fmt.Fprintf(env.Stderr, "%s [y/N] ", printable.Text(question))
		answer, _ := bufio.NewReader(t.In).ReadString('\n')
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return nil
		}
		return errors.New("not confirmed: nothing was done")
	}
}

// Ask is Confirm, asked at once.
func (t *Terminal) Ask(env Env, yes bool, question, orElse string) error {
	if confirm := t.Confirm(env, yes, orElse); confirm != nil {
		return confirm(question)
	}
	return nil
}
