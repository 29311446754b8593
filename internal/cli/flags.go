package cli

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/rollcall-platform/rollcall/internal/printable"
)

// Flags are the flags that every command has. Embed them in the grammar.
type Flags struct {
	Config    ConfigFile       `help:"Read settings from this YAML file. A key is the name of a flag; a mapping under the name of a command is for that command alone." placeholder:"FILE" env:"ROLLCALL_CONFIG"`
	LogLevel  string           `help:"Log what is at least this severe: ${enum}." default:"info" enum:"debug,info,warn,error" env:"ROLLCALL_LOG_LEVEL"`
	LogFormat string           `help:"Log as ${enum}." default:"text" enum:"text,json" env:"ROLLCALL_LOG_FORMAT"`
	Check     bool             `help:"Check the flags, the environment and the file, and exit without starting. A ROLLCALL_ variable that nothing reads is an error then." name:"check-config"`
	Version   kong.VersionFlag `help:"Print the version and exit." short:"V"`

	defaults []Default
}

// Default is an address that nobody has set. The defaults are of this host: in a
// container they lead to the container itself.
type Default struct {
	Flag  string   // such as --kafka-brokers
	Value string   // what is used
	Env   []string // the variables that would set it
}

// String is how a log line and --check-config tell it.
func (d Default) String() string {
	return fmt.Sprintf("%s is %s; set it or $%s", d.Flag, d.Value, strings.Join(d.Env, ", $"))
}

// AddDefault tells of an address whose default is not the flag's: a command's
// AfterApply may ask for the Flags and call it.
func (f *Flags) AddDefault(d Default) { f.defaults = append(f.defaults, d) }

// addDefaults tells of the flags with the tag address that neither the command
// line, nor the environment, nor the file has set.
func (f *Flags) addDefaults(ctx *kong.Context) {
	for _, flag := range ctx.Flags() {
		given := slices.ContainsFunc(ctx.Path, func(p *kong.Path) bool { return p.Flag == flag })
		if flag.Tag.Has("address") && !given && !inEnvironment(flag) {
			f.AddDefault(Default{Flag: "--" + flag.Name, Value: flag.Default, Env: EnvNames(flag)})
		}
	}
}

func (f *Flags) flags() *Flags { return f }

// Logger returns a logger that writes to w as the flags say. What a terminal would
// obey is quoted or escaped.
func (f *Flags) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		level = slog.LevelInfo // kong has refused anything else
	}
	options := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(printable.NewJSONWriter(w), options))
	}
	return slog.New(slog.NewTextHandler(printable.NewWriter(w), options))
}

// formatHelp is a flag's help with its default, where a placeholder hides it,
// and the environment variables that set it.
func formatHelp(value *kong.Value) string {
	help := value.Help
	if value.Enum != "" {
		help = strings.ReplaceAll(help, value.Enum, strings.ReplaceAll(value.Enum, ",", ", "))
	}
	flag := value.Flag
	if flag == nil {
		return help
	}
	if flag.PlaceHolder != "" && value.HasDefault && value.Default != "" {
		help += " Default: " + value.Default + "."
	}
	names := EnvNames(flag)
	for i, name := range names {
		names[i] = "$" + name
	}
	if len(names) > 0 {
		help += " (" + strings.Join(names, ", ") + ")"
	}
	return strings.TrimSpace(help)
}
