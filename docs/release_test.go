package docs_test

import (
	"archive/tar"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// cyclonedx is the tool that "make release" and "make unit" build.
func cyclonedx(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("CYCLONEDX"); path != "" {
		return path
	}
	found, err := filepath.Glob(filepath.Join(root, ".tools", "cyclonedx-gomod-*"))
	require.NoError(t, err)
	if len(found) == 0 {
		t.Skip("needs .tools/cyclonedx-gomod (make unit builds it)")
	}
	path, err := filepath.Abs(found[0])
	require.NoError(t, err)
	return path
}

// clone is a repository of its own with one commit, which is this tree's files,
// tagged v0.0.1. Every clone has the same commit.
func clone(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range tree(t) {
		info, err := os.Stat(filepath.Join(root, name))
		require.NoError(t, err)
		to := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		require.NoError(t, os.WriteFile(to, []byte(source(t, name)), info.Mode().Perm()))
	}
	require.NoFileExists(t, filepath.Join(dir, ".git"), "it would lead to this tree's repository")
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--message", "a release"}, {"tag", "v0.0.1"}} {
		git(t, dir, args...)
	}
	return dir
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_DIR="+filepath.Join(dir, ".git"), "GIT_WORK_TREE="+dir, "GIT_AUTHOR_DATE=2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE=2026-01-01T00:00:00Z", "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "git %s: %s", strings.Join(args, " "), out)
	return string(out)
}

func release(t *testing.T, dir, tool string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "scripts", "release.sh"))
	cmd.Env = append(os.Environ(), "ARCHITECTURES=amd64", "CYCLONEDX="+tool)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// The same commit gives the same files, wherever it is checked out. They hold
// static binaries that know their version, and nothing but dist/ is written.
func TestRelease(t *testing.T) {
	tool := cyclonedx(t)
	first, second := clone(t), clone(t)
	for _, dir := range []string{first, second} {
		release(t, dir, tool)
		require.Empty(t, git(t, dir, "status", "--porcelain"), "dist/ is ignored, and nothing else is written")
	}
	read := func(dir, name string) string {
		b, err := os.ReadFile(filepath.Join(dir, "dist", name))
		require.NoError(t, err)
		return string(b)
	}
	require.Equal(t, read(first, "SHA256SUMS"), read(second, "SHA256SUMS"))
	require.Len(t, strings.Split(strings.TrimSpace(read(first, "SHA256SUMS")), "\n"), 4)

	for _, binary := range []string{"rollcall", "rollcall-edge"} {
		name := binary + "_v0.0.1_linux_amd64"
		path := extract(t, filepath.Join(first, "dist", name+".tar.gz"), name+"/"+binary)
		file, err := elf.Open(path)
		require.NoError(t, err)
		t.Cleanup(func() { _ = file.Close() })
		for _, p := range file.Progs {
			require.NotEqual(t, elf.PT_INTERP, p.Type, "%s is static", binary)
		}
		out, err := exec.CommandContext(t.Context(), path, "--version").Output()
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(out), binary+" v0.0.1 "), string(out))

		var sbom struct {
			BOMFormat  string
			Metadata   struct{ Component struct{ Version string } }
			Components []struct{ Name string }
		}
		require.NoError(t, json.Unmarshal([]byte(read(first, name+".cdx.json")), &sbom))
		require.Equal(t, "CycloneDX", sbom.BOMFormat)
		require.Equal(t, "v0.0.1", sbom.Metadata.Component.Version)
		require.NotEmpty(t, sbom.Components)
	}

	require.NoError(t, os.WriteFile(filepath.Join(first, "README.md"), []byte("changed"), 0o600))
	err := exec.CommandContext(t.Context(), filepath.Join(first, "scripts", "release.sh")).Run()
	require.Error(t, err, "a release is of a commit")
}

// extract writes one file of an archive to a temporary directory.
func extract(t *testing.T, archive, name string) string {
	t.Helper()
	file, err := os.Open(archive)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	zipped, err := gzip.NewReader(file)
	require.NoError(t, err)
	for in := tar.NewReader(zipped); ; {
		header, err := in.Next()
		require.False(t, errors.Is(err, io.EOF), "%s has no %s", archive, name)
		require.NoError(t, err)
		require.Zero(t, header.Uid)
		if header.Name != name {
			continue
		}
		path := filepath.Join(t.TempDir(), filepath.Base(name))
		b, err := io.ReadAll(in)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, b, 0o700)) //nolint:gosec // a binary
		return path
	}
}
