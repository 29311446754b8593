package device_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestVocabularyIsWhole(t *testing.T) {
	names := attributeConstants(t)
	seen := map[string]bool{}
	for _, s := range device.Vocabulary {
		require.NoError(t, device.CheckName(s.Name))
		require.Falsef(t, seen[s.Name], "%s is there twice", s.Name)
		seen[s.Name] = true
		require.NotEmpty(t, s.About, s.Name)
		require.Contains(t, []device.Setter{device.SetByDiscovery, device.SetByRegistry, device.Reserved}, s.SetBy, s.Name)
		require.Error(t, s.Type.Check(json.RawMessage(`{}`)), "%s has a type that takes anything", s.Name)
		require.Contains(t, names, s.Name, "it has no constant")
	}
	for name, constant := range names {
		require.True(t, seen[name], "%s is not in the table", constant)
	}
	for _, list := range [][]string{device.NameAttributes, device.ModelAttributes} {
		for _, name := range list {
			require.True(t, seen[name], name)
		}
	}
	for _, s := range device.Vocabulary {
		require.Equal(t, slices.Contains(device.ModelAttributes, s.Name), s.Search == device.SearchModel, s.Name)
	}
}

// What one side sets under a name, the other finds under it: nobody spells a
// name, and who is said to set an attribute does.
func TestBothSidesKeepToTheVocabulary(t *testing.T) {
	names := attributeConstants(t)
	constants := map[string]string{}
	for name, constant := range names {
		constants[constant] = name
	}
	edge, cloud := map[string]bool{}, map[string]bool{}
	files := 0
	for _, root := range []string{"edge", "internal", "workflows", "activities", "workers", "cmd"} {
		for _, path := range goFiles(t, filepath.Join("..", "..", root)) {
			if strings.Contains(path, "cmd/devstack/internal/check/") {
				continue // the second opinion shares no code with what it checks
			}
			files++
			uses := cloud
			if strings.Contains(path, "/edge/") || strings.Contains(path, "/rollcall-edge/") {
				uses = edge
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			require.NoError(t, err)
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if p, ok := n.X.(*ast.Ident); ok && p.Name == "device" {
						if name, ok := constants[n.Sel.Name]; ok {
							uses[name] = true
						}
					}
				case *ast.BasicLit:
					if n.Kind != token.STRING || filepath.Base(path) == "vocabulary.go" {
						break
					}
					text, err := strconv.Unquote(n.Value)
					require.NoError(t, err)
					if constant, ok := names[text]; ok {
						t.Errorf("%s spells %q: use device.%s", path, text, constant)
					}
				}
				return true
			})
		}
	}
	require.Greater(t, files, 100, "the tree was not found")
	for _, s := range device.Vocabulary {
		if s.SetBy == device.Reserved {
			require.False(t, edge[s.Name], "%s is reserved, and the edge names it", s.Name)
			continue
		}
		require.True(t, edge[s.Name], "%s is said to be set by %s, and nothing at the edge names it", s.Name, s.SetBy)
	}
}

// attributeConstants are the names of attributes with their constants.
func attributeConstants(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "vocabulary.go", nil, 0)
	require.NoError(t, err)
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(v.Names[0].Name, "Attr") {
			return true
		}
		literal, ok := v.Values[0].(*ast.BasicLit)
		require.True(t, ok, v.Names[0].Name)
		name, err := strconv.Unquote(literal.Value)
		require.NoError(t, err)
		require.Empty(t, out[name], "%s has two constants", name)
		out[name] = v.Names[0].Name
		return true
	})
	require.NotEmpty(t, out)
	return out
}

// goFiles are the Go files below root that are no tests.
func goFiles(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			out = append(out, filepath.Join(root, path))
		}
		return err
	}))
	return out
}
