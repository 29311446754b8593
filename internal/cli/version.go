package cli

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// version and commit are set by the linker where the Go tool cannot know them:
// it sees no repository in a container build, and no tag of the repository for
// a module in one of its folders.
//
//	-ldflags "-X 'github.com/rollcall-platform/rollcall/internal/cli.version=v1.2.3' -X 'github.com/rollcall-platform/rollcall/internal/cli.commit=0123abcd'"
var version, commit string

// Version is the running binary's version, its commit ("+changes" when the work
// tree differed) and the Go release it was built with, such as
// "v1.2.3 (commit 0123456789ab, go1.26.0)". What is not known is "unknown".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return describe(version, commit, info)
}

func describe(version, commit string, info *debug.BuildInfo) string {
	module, revision, changes := info.Main.Version, "", ""
	if module == "(devel)" { // the Go tool's word for: built from a work tree without a version
		module = ""
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changes = "+changes"
		}
	}
	if commit != "" {
		revision, changes = commit, ""
	}
	revision = cmp.Or(revision[:min(12, len(revision))], "unknown")
	return fmt.Sprintf("%s (commit %s%s, %s)", cmp.Or(version, module, "unknown"), revision, changes, cmp.Or(info.GoVersion, "unknown"))
}
