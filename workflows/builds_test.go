package workflows

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCountForBuild(t *testing.T) {
	var c CarriedState
	c.countForBuild("", 5)
	c.countForBuild("v1", 0)
	require.Empty(t, c.Builds, "no build, or nothing applied")
	for _, b := range []AppliedByBuild{{"v1", 1}, {"v2", 2}, {"v1", 10}} {
		c.countForBuild(b.ID, b.Events)
	}
	require.Equal(t, []AppliedByBuild{{"v2", 2}, {"v1", 11}}, c.Builds)
	for _, id := range []string{"v3", "v4", "v5"} {
		c.countForBuild(id, 1)
	}
	require.Equal(t, []AppliedByBuild{{"v1", 11}, {"v3", 1}, {"v4", 1}, {"v5", 1}}, c.Builds, "the oldest is forgotten")
}
