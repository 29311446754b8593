package command

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestEveryActionOfTheTableHasAHandler(t *testing.T) {
	var actions []device.Action
	for _, spec := range device.Actions {
		actions = append(actions, spec.Name)
	}
	require.ElementsMatch(t, actions, slices.Collect(maps.Keys(handlers)), "the table of actions and the handlers of the edge must name the same actions")
}
