package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/rollcall-platform/rollcall/internal/printable"
)

// Exit codes of every command.
const (
	ExitOK       = 0
	ExitFailed   = 1
	ExitUsage    = 2
	ExitNotFound = 3
)

// Error is an error with an exit code of its own. Any other error is
// ExitFailed.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error without its exit code.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode implements kong.ExitCoder.
func (e *Error) ExitCode() int { return e.Code }

// Usagef is an error of whoever called the command: ExitUsage.
func Usagef(format string, args ...any) error {
	return &Error{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// NotFoundf says that what was asked for does not exist: ExitNotFound.
func NotFoundf(format string, args ...any) error {
	return &Error{Code: ExitNotFound, Err: fmt.Errorf(format, args...)}
}

// Env is what a command's Run method may ask for, beside a context.Context:
//
//	func (c *pollerCmd) Run(ctx context.Context, env cli.Env) error
//
// Stdout and Stderr replace what could control a terminal, so that no command has
// to remember it. Line breaks pass: text from outside goes through WriteRow,
// WriteJSON or printable.Text, or is quoted.
type Env struct {
	Stdout io.Writer // results: for people, or for programs with -o json
	Stderr io.Writer // progress and errors
	Raw    io.Writer // standard output byte for byte, for what is not text; never a terminal
	Logger *slog.Logger

	defaults []Default
}

// Defaults are the addresses that nobody has set.
func (e Env) Defaults() []Default { return e.defaults }

// Grammar is a pointer to a kong grammar struct that embeds Flags.
type Grammar interface{ flags() *Flags }

// App is one binary.
type App struct {
	Name        string  // required; also the prefix of errors
	Description string  // required; the first lines of --help
	Grammar     Grammar // required
	Options     []kong.Option

	Stdout io.Writer // default os.Stdout
	Stderr io.Writer // default os.Stderr
}

// Main runs the app with the process's arguments under a signal context and
// exits with its code. It does not return.
func Main(app App) {
	ctx, stop := SignalContext(context.Background())
	code := app.Run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// SignalContext returns a context that the first SIGINT or SIGTERM cancels.
// From then on signals have their default effect again, so that a second one
// ends the process at once.
func SignalContext(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Kong returns the app's parser: the model of its commands, flags and
// environment names is in it.
func (a App) Kong() (*kong.Kong, error) {
	stdout, stderr := a.writers()
	options := []kong.Option{
		kong.Name(a.Name), kong.Description(a.Description),
		kong.Writers(stdout, stderr),
		kong.Vars{"version": a.Name + " " + Version()},
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ValueFormatter(formatHelp),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100, NoExpandSubcommands: false}),
		kong.Resolvers(secretEnv{}),
		kong.Bind(a.Grammar.flags()),
	}
	k, err := kong.New(a.Grammar, append(options, a.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("grammar of %s: %w", a.Name, err)
	}
	return k, nil
}

// Run parses args, runs the selected command and returns the exit code. It
// prints the error, if there is one.
func (a App) Run(ctx context.Context, args []string) (code int) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exit: // --help and --version
			code = int(r)
		default:
			panic(r)
		}
	}()
	stdout, stderr := a.writers()
	k, err := a.Kong()
	if err != nil {
		return a.fail(err, ExitFailed)
	}
	kctx, err := k.Parse(args)
	if err != nil {
		return a.fail(fmt.Errorf("%w (see %s --help)", err, failedAt(k, err)), ExitUsage)
	}
	flags := a.Grammar.flags()
	flags.addDefaults(kctx)
	if flags.Check {
		if err := checkEnvironment(k, os.Environ()); err != nil {
			return a.fail(err, ExitUsage)
		}
		_, _ = fmt.Fprintf(stdout, "%s: settings are valid\n", kctx.Selected().FullPath())
		for _, d := range flags.defaults {
			_, _ = fmt.Fprintf(stdout, "an address of this host or container alone, by default: %s\n", d)
		}
		return ExitOK
	}
	kctx.BindTo(ctx, (*context.Context)(nil))
	kctx.Bind(Env{Stdout: printable.NewWriter(stdout), Stderr: printable.NewWriter(stderr), Raw: stdout, Logger: flags.Logger(stderr), defaults: flags.defaults})
	err = kctx.Run()
	if err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return ExitOK
	}
	code = ExitFailed
	if coded := (*Error)(nil); errors.As(err, &coded) {
		code = coded.Code
	}
	return a.fail(err, code)
}

type exit int

// checkEnvironment refuses variables with the project's prefix that no command
// of the app reads: they are misspelt, or of another binary. ROLLCALL_TEST_ is
// for the project's tests.
func checkEnvironment(k *kong.Kong, environ []string) error {
	var known []string
	_ = kong.Visit(k.Model.Node, func(n kong.Visitable, next kong.Next) error {
		if flag, ok := n.(*kong.Flag); ok {
			known = append(known, EnvNames(flag)...)
		}
		return next(nil)
	})
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "ROLLCALL_") && !strings.HasPrefix(name, "ROLLCALL_TEST_") && !slices.Contains(known, name) {
			return fmt.Errorf("%s is in the environment, and nothing reads it%s", name, nearest(name, known))
		}
	}
	return nil
}

func (a App) writers() (stdout, stderr io.Writer) {
	stdout, stderr = a.Stdout, a.Stderr
	if stdout == nil {
		stdout = os.Stdout
	}
	if stderr == nil {
		stderr = os.Stderr
	}
	return stdout, stderr
}

func (a App) fail(err error, code int) int {
	_, stderr := a.writers()
	fmt.Fprintf(stderr, "%s: %s\n", a.Name, OneLine(err))
	return code
}

// failedAt is the command line to ask for help about a parse error.
func failedAt(k *kong.Kong, err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			return node.FullPath()
		}
	}
	return k.Model.Name
}

var password = regexp.MustCompile(`(://[^:/@\s]*):[^/@\s]+@`)

// maxError is how much of an error is printed, in characters.
const maxError = 4000

// OneLine is the text of err as a command prints it: one line, URLs in it without
// their passwords, and characters that do not print replaced, because they could
// control the terminal.
func OneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	lines = slices.Compact(lines)
	text := password.ReplaceAllString(strings.ReplaceAll(strings.Join(lines, "; "), ":; ", ": "), "$1:xxxxx@")
	return Clip(printable.Text(strings.ReplaceAll(text, "\t", " ")), maxError)
}
