package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/metrictest"
)

// A value that is not of its attribute's type is refused before it is an event,
// whatever the attribute, and costs nothing else of its observation.
func TestValuesHaveTheTypeOfTheirAttribute(t *testing.T) {
	wrong := map[device.ValueType]any{
		device.TextValue: true, device.BoolValue: "yes", device.IPv4Value: "not an ip", device.MACValue: "no mac",
		device.TextsValue: "one", device.IPv6sValue: "::1", device.IntegerValue: "1",
	}
	for _, spec := range device.Vocabulary {
		if spec.Name == device.AttrMAC || spec.SetBy == device.SetByRegistry {
			continue // the registry itself sets these
		}
		t.Run(spec.Name, func(t *testing.T) {
			f := open(t)
			f.observe(seen(tv, map[string]any{"lab.own": "as it is"}))
			f.take()
			f.observe(seen(tv, map[string]any{spec.Name: wrong[spec.Type], "lab.more": "told all the same"}))
			require.InDelta(t, 1, metrictest.Value(t, f.reg, "rollcall_edge_attributes_refused_total", "reason", "invalid"), 0)
			events := f.take()
			require.Len(t, events, 1)
			require.NotContains(t, events[0].Attributes, spec.Name)
			require.Contains(t, events[0].Attributes, "lab.more")
		})
	}
}
