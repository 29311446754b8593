package device_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestTableOfActions(t *testing.T) {
	require.NotEmpty(t, device.Actions)
	seen := map[device.Action]bool{}
	for _, a := range device.Actions {
		require.Falsef(t, seen[a.Name], "%s is there twice", a.Name)
		seen[a.Name] = true
		require.NotEmpty(t, a.About, a.Name)
		require.Positive(t, a.Deadline, a.Name)
		require.LessOrEqual(t, a.Deadline, device.MaxCommandLife, a.Name)
		for _, f := range append(append([]device.Field{}, a.Arguments...), a.Result...) {
			require.NotEmpty(t, f.About, "%s: %s", a.Name, f.Name)
			require.Error(t, f.Type.Check(json.RawMessage(`{}`)), "%s: %s has a type that takes anything", a.Name, f.Name)
		}
		spec, ok := device.SpecOfAction(a.Name)
		require.True(t, ok)
		require.Equal(t, a.Name, spec.Name)
	}
	_, ok := device.SpecOfAction("brew-coffee")
	require.False(t, ok)
}

func TestArgumentsAreHeldAgainstTheTable(t *testing.T) {
	ping, ok := device.SpecOfAction(device.ActionPing)
	require.True(t, ok)
	for _, tt := range []struct{ arguments, want string }{
		{``, ""}, {`{}`, ""}, {`{"text":"hello"}`, ""},
		{`[]`, "not a JSON object"}, {`null`, "not a JSON object"}, {`{`, "not a JSON object"},
		{`{"text":1}`, "argument text: 1 is not of type text"},
		{`{"txet":"hello"}`, `unknown argument "txet": there are text`},
	} {
		if err := ping.CheckArguments(json.RawMessage(tt.arguments)); tt.want == "" {
			require.NoError(t, err, tt.arguments)
		} else {
			require.ErrorContains(t, err, tt.want, tt.arguments)
		}
	}
	snapshot, ok := device.SpecOfAction(device.ActionSnapshot)
	require.True(t, ok)
	require.ErrorContains(t, snapshot.CheckArguments(json.RawMessage(`{"text":"x"}`)), "there are none")
	require.ErrorContains(t, snapshot.CheckResult(nil), "result field seq is missing")
	require.NoError(t, snapshot.CheckResult(json.RawMessage(`{"seq":3,"more":true}`)), "a newer edge may say more")
}

// The sender is held to the table; what passes a command on is not.
func TestCommandOfAnUnknownAction(t *testing.T) {
	c := command()
	c.Action, c.Arguments = device.ActionPing, json.RawMessage(`{"text":"hello"}`)
	topic, err := c.Topic()
	require.NoError(t, err)
	b, err := c.Encode()
	require.NoError(t, err)
	got, err := device.DecodeCommand(topic, b)
	require.NoError(t, err)
	require.Equal(t, c, got)

	newer := changed(t, b, func(m, _ map[string]any) { m["type"] = "rollcall.device.command.brew-coffee.v1" })
	got, err = device.DecodeCommand(topic, newer)
	require.NoError(t, err)
	require.EqualValues(t, "brew-coffee", got.Action)
	require.Equal(t, c.Arguments, got.Arguments)
	require.Equal(t, asked.Add(time.Minute), got.Expires)
	_, err = got.Encode()
	require.ErrorContains(t, err, "not in the table")

	c.Arguments = json.RawMessage(`{"txet":"hello"}`)
	_, err = c.Encode()
	require.ErrorContains(t, err, "unknown argument")
}
