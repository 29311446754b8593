package device_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestValueTypes(t *testing.T) {
	for _, tt := range []struct {
		typ       device.ValueType
		good, bad []string
	}{
		{device.TextValue, []string{`""`, `"a"`}, []string{`1`, `null`, `[]`, `{}`, `true`}},
		{device.TextsValue, []string{`[]`, `["a","b"]`}, []string{`"a"`, `[1]`, `null`, `{}`}},
		{device.BoolValue, []string{`true`, `false`}, []string{`"true"`, `0`, `null`}},
		{device.IntegerValue, []string{`0`, `-3`, `9007199254740991`}, []string{`1.5`, `"1"`, `9007199254740992`, `null`}},
		{device.IPv4Value, []string{`"192.168.77.31"`}, []string{`"not an ip"`, `"::1"`, `"::ffff:1.2.3.4"`, `"1.2.3"`, `1`, `""`, `null`}},
		{device.IPv6sValue, []string{`[]`, `["fe80::1","2001:db8::2"]`}, []string{`"fe80::1"`, `["fe80::1%eth0"]`, `["1.2.3.4"]`, `null`}},
		{device.MACValue, []string{`"4c:b1:17:20:11:01"`}, []string{`"4C:B1:17:20:11:01"`, `"4c-b1-17-20-11-01"`, `"4c:b1:17:20:11"`, `"4c:b1:17:20:11:0g"`, `1`, `null`}},
		{"no such type", nil, []string{`"a"`}},
	} {
		for _, v := range tt.good {
			require.NoErrorf(t, tt.typ.Check(json.RawMessage(v)), "%s %s", tt.typ, v)
		}
		for _, v := range tt.bad {
			require.Errorf(t, tt.typ.Check(json.RawMessage(v)), "%s %s", tt.typ, v)
		}
	}
}

func TestCheckValue(t *testing.T) {
	require.NoError(t, device.CheckValue("lab.own", json.RawMessage(`{"any":1}`)))
	require.NoError(t, device.CheckValue(device.AttrConnectionStatus, json.RawMessage(`"online"`)))
	require.ErrorContains(t, device.CheckValue(device.AttrConnectionStatus, json.RawMessage(`"onlin"`)), "none of")
	require.ErrorContains(t, device.CheckValue(device.AttrIPv4, json.RawMessage(`"not an ip"`)), "network.ipv4")
}
