package cli

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVersionSaysWhatTheBuildKnows(t *testing.T) {
	const long = "0123456789abcdef0123456789abcdef01234567"
	built := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Version: version}, Settings: settings}
	}
	revision, modified := debug.BuildSetting{Key: "vcs.revision", Value: long}, debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for want, c := range map[string]struct {
		version, commit string
		info            *debug.BuildInfo
	}{
		"v1.2.3 (commit 0123456789ab, go1.26.0)":          {info: built("v1.2.3", revision)},
		"v1.2.4 (commit 0123456789ab, go1.26.0)":          {version: "v1.2.4", commit: long, info: built("(devel)")},
		"v1.2.5 (commit feedfeed, go1.26.0)":              {version: "v1.2.5", commit: "feedfeed", info: built("v1.2.3", revision, modified)},
		"unknown (commit 0123456789ab+changes, go1.26.0)": {info: built("(devel)", revision, modified)},
		"unknown (commit unknown, go1.26.0)":              {info: built("(devel)")},
		"unknown (commit unknown, unknown)":               {info: &debug.BuildInfo{}},
	} {
		require.Equal(t, want, describe(c.version, c.commit, c.info))
	}
}
