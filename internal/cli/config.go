package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// ConfigFile is the flag that names the configuration file. Setting it, by
// flag or environment, makes the file a source of settings.
type ConfigFile string

// BeforeResolve reads the file. Kong calls it before it looks for values that
// the command line did not give.
func (c ConfigFile) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	path := c
	if v, ok := ctx.FlagValue(trace.Flag).(ConfigFile); ok && v != "" {
		path = v
	}
	b, err := os.ReadFile(string(path))
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	f, err := readConfig(string(path), b)
	if err != nil {
		return err
	}
	if err := f.check(ctx.Model.Node, f.top, true); err != nil {
		return err
	}
	ctx.AddResolver(f)
	return nil
}

// configFile answers kong's question for a flag's value from a YAML mapping.
type configFile struct {
	path string
	top  *yaml.Node // a mapping, or nil when the file is empty
}

func readConfig(path string, b []byte) (*configFile, error) {
	f := &configFile{path: path}
	d := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one YAML document", path)
	}
	f.top = doc.Content[0]
	if f.top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: not a mapping of flag names to values", path, f.top.Line)
	}
	return f, nil
}

// check refuses keys that no command at or below node knows, and keys that
// come twice.
func (f *configFile) check(node *kong.Node, m *yaml.Node, inherit bool) error {
	if m == nil {
		return nil
	}
	known := flagNames(node, inherit)
	var seen []string
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, value := m.Content[i], m.Content[i+1]
		if slices.Contains(seen, key.Value) {
			return fmt.Errorf("%s:%d: key %q comes twice", f.path, key.Line, key.Value)
		}
		seen = append(seen, key.Value)
		if child := command(node, key.Value); child != nil && value.Kind == yaml.MappingNode {
			if err := f.check(child, value, true); err != nil {
				return err
			}
			continue
		}
		if !slices.Contains(known, key.Value) {
			return fmt.Errorf("%s:%d: unknown key %q%s", f.path, key.Line, key.Value, nearest(key.Value, known))
		}
		if _, err := scalar(value); err != nil {
			return fmt.Errorf("%s:%d: key %q: %w", f.path, value.Line, key.Value, err)
		}
	}
	return nil
}

// Validate implements kong.Resolver; check has done it with better messages.
func (f *configFile) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver. What is under the command's own name goes
// before what is above it; the environment goes before both.
func (f *configFile) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !configurable(flag) || inEnvironment(flag) {
		return nil, nil
	}
	var found *yaml.Node
	m := f.top
	for _, name := range append([]string{""}, commandPath(ctx.Selected())...) {
		if name != "" {
			m = lookup(m, name)
		}
		if m == nil || m.Kind != yaml.MappingNode {
			break
		}
		if v := lookup(m, flag.Name); v != nil && v.Kind != yaml.MappingNode {
			found = v
		}
	}
	if found == nil {
		return nil, nil
	}
	return scalar(found)
}

// scalar is a YAML value as it would be written on the command line.
func scalar(v *yaml.Node) (any, error) {
	switch {
	case v.Kind == yaml.AliasNode:
		return scalar(v.Alias)
	case v.Kind == yaml.ScalarNode && v.Tag == "!!null":
		return nil, errors.New("has no value")
	case v.Kind == yaml.ScalarNode:
		return v.Value, nil
	case v.Kind == yaml.SequenceNode:
		parts := make([]string, len(v.Content))
		for i, e := range v.Content {
			if e.Kind != yaml.ScalarNode {
				return nil, errors.New("is a list of something else than plain values")
			}
			parts[i] = e.Value
		}
		return kong.JoinEscaped(parts, ','), nil
	default:
		return nil, errors.New("is a mapping, not a value")
	}
}

func lookup(m *yaml.Node, key string) *yaml.Node {
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func command(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Type == kong.CommandNode && child.Name == name {
			return child
		}
	}
	return nil
}

func commandPath(node *kong.Node) []string {
	var path []string
	for ; node != nil && node.Type != kong.ApplicationNode; node = node.Parent {
		path = append(path, node.Name)
	}
	slices.Reverse(path)
	return path
}

// flagNames are the flags of node, of everything below it and, if inherit, of
// what is above.
func flagNames(node *kong.Node, inherit bool) []string {
	var names []string
	add := func(n *kong.Node) {
		for _, flag := range n.Flags {
			if configurable(flag) && !slices.Contains(names, flag.Name) {
				names = append(names, flag.Name)
			}
		}
	}
	for up := node.Parent; inherit && up != nil; up = up.Parent {
		add(up)
	}
	var down func(*kong.Node)
	down = func(n *kong.Node) {
		add(n)
		for _, child := range n.Children {
			down(child)
		}
	}
	down(node)
	return names
}

// configurable reports whether a file may set flag.
func configurable(flag *kong.Flag) bool {
	switch flag.Name {
	case "help", "version", "config", "check-config":
		return false
	}
	return true
}

// nearest is a hint at the known name that differs least from name.
func nearest(name string, known []string) string {
	best, least := "", len(name)/2+1
	for _, k := range known {
		if d := min(distance(name, k), distance(strings.ReplaceAll(name, "_", "-"), k)); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
