package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestModelIsOfTheStrongestEvidence(t *testing.T) {
	f := open(t)
	model := func() string { return string(f.device(tv).Attributes[device.AttrDeviceModel].Value) }
	for _, step := range []struct {
		name  string
		set   map[string]any
		unset []string
		want  string
	}{
		{"nothing tells it", map[string]any{"network.hostname": "tv"}, nil, ""},
		{"a DHCP client program does not", map[string]any{device.AttrDHCPVendor: "udhcp 1.35.0"}, nil, ""},
		{"whatever its case", map[string]any{device.AttrDHCPVendor: "MSFT 5.0"}, nil, ""},
		{"nor a number", map[string]any{device.AttrDHCPVendor: "12.1"}, nil, ""},
		{"a vendor class does", map[string]any{device.AttrDHCPVendor: "Inkwell 4100 series"}, nil, `"Inkwell 4100 series"`},
		{"mDNS does better", map[string]any{device.AttrMDNSModel: "Inkwell 4100"}, nil, `"Inkwell 4100"`},
		{"whatever DHCP says then", map[string]any{device.AttrDHCPVendor: "Inkwell"}, nil, `"Inkwell 4100"`},
		{"until it is withdrawn", nil, []string{device.AttrMDNSModel}, `"Inkwell"`},
		{"and so is all", nil, []string{device.AttrDHCPVendor}, ""},
	} {
		o := seen(tv, step.set)
		o.Unset = step.unset
		f.observe(o)
		require.Equal(t, step.want, model(), step.name)
	}
	for _, e := range f.take() {
		if a, ok := e.Attributes[device.AttrDeviceModel]; ok {
			require.Equal(t, e.Seq, a.Seq, "it is told in the event of its evidence")
		}
	}
	f.reopen()
	require.Empty(t, model())
}
