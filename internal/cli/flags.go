package cli

import (
	"io"
	"log/slog"
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
