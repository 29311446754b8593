package device_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

const commandID = "0b8f2f43-3f4f-4a53-9d40-3c1e9a2f7d10"

var asked = time.Date(2026, 3, 1, 8, 0, 0, 123_000_000, time.UTC)

func command() device.Command {
	return device.Command{
		ID: commandID, Source: device.CommandSource("cli"), RAE: rae, Session: session, Action: device.ActionSnapshot,
		Time: asked, Expires: asked.Add(time.Minute), Reason: "seq 4 to 6 are missing",
	}
}

func reply() device.Reply {
	return device.Reply{Command: commandID, RAE: rae, Session: session, Action: device.ActionSnapshot, Outcome: device.Done, Result: json.RawMessage(`{"seq":8}`), Time: asked}
}

// changed is b with its JSON changed.
func changed(t testing.TB, b []byte, change func(m, data map[string]any)) []byte {
	var m map[string]any
	require.NoError(t, json.Unmarshal(b, &m))
	change(m, m["data"].(map[string]any)) //nolint:forcetypeassert // of our own making
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return b
}

func TestCommandRoundTrip(t *testing.T) {
	c := command()
	topic, err := c.Topic()
	require.NoError(t, err)
	require.Equal(t, "rollcall/v1/"+rae+"/sessions/"+session+"/commands", topic)
	b, err := c.Encode()
	require.NoError(t, err)
	require.Contains(t, string(b), `"type":"rollcall.device.command.snapshot.v1"`)
	require.Contains(t, string(b), `"expires":"2026-03-01T08:01:00.123Z"`)
	got, err := device.DecodeCommand(topic, b)
	require.NoError(t, err)
	require.Equal(t, c, got)
	_, err = device.DecodeCommand(topic, changed(t, b, func(m, data map[string]any) { m["later"], data["later"] = 1, 1 }))
	require.NoError(t, err, "unknown fields are kept out, not fatal")
	require.False(t, c.Expired(c.Expires.Add(-time.Nanosecond)))
	require.True(t, c.Expired(c.Expires))
}

func TestReplyRoundTrip(t *testing.T) {
	for _, r := range []device.Reply{
		reply(),
		{Command: commandID, RAE: rae, Session: session, Action: device.ActionSnapshot, Outcome: device.Refused, Detail: "again in 10s", Time: asked},
		{Command: commandID, RAE: rae, Session: session, Action: "brew-coffee", Outcome: device.Unsupported, Time: asked},
		{Command: commandID, RAE: rae, Session: session, Action: "newer-than-this", Outcome: device.Done, Result: json.RawMessage(`{"more":[1]}`), Time: asked},
	} {
		topic, err := r.Topic()
		require.NoError(t, err)
		b, err := r.Encode()
		require.NoError(t, err)
		got, err := device.DecodeReply(topic, b)
		require.NoError(t, err)
		require.Equal(t, r, got)
	}
}

func TestDecodeCommandRefuses(t *testing.T) {
	c := command()
	topic, err := c.Topic()
	require.NoError(t, err)
	good, err := c.Encode()
	require.NoError(t, err)
	in := func(name string, v any) []byte {
		return changed(t, good, func(m, _ map[string]any) { m[name] = v })
	}
	data := func(name string, v any) []byte {
		return changed(t, good, func(_, d map[string]any) { d[name] = v })
	}
	other := "11111111-1111-4111-8111-111111111111"
	for _, tt := range []struct {
		name, topic string
		value       []byte
		want        device.Cause
	}{
		{"empty", topic, nil, device.NotJSON},
		{"not JSON", topic, []byte(`{`), device.NotJSON},
		{"not UTF-8", topic, []byte("\"\xff\""), device.NotUTF8},
		{"an array", topic, []byte(`[]`), device.NotCloudEvent},
		{"null", topic, []byte(`null`), device.NotCloudEvent},
		{"too large", topic, []byte(`"` + strings.Repeat("x", device.MaxCommandBytes) + `"`), device.TooLarge},
		{"an event's type", topic, in("type", "rollcall.device.snapshot.v1"), device.UnknownType},
		{"no action", topic, in("type", "rollcall.device.command..v1"), device.UnknownType},
		{"an action of another form", topic, in("type", "rollcall.device.command.Re boot.v1"), device.UnknownType},
		{"a later version", topic, in("type", "rollcall.device.command.snapshot.v2"), device.UnknownType},
		{"arguments of no form", topic, data("arguments", []any{1}), device.BadCommand},
		{"id no UUID", topic, in("id", "42"), device.BadCommand},
		{"source of nobody", topic, in("source", "me"), device.BadCommand},
		{"source with a line feed", topic, in("source", "/rollcall/a\nb"), device.BadCommand},
		{"another subject", topic, in("subject", other), device.BadSubject},
		{"no time", topic, in("time", nil), device.BadTime},
		{"no data", topic, in("data", nil), device.BadSubject},
		{"data of another shape", topic, in("data", []any{}), device.NotCloudEvent},
		{"no expiry", topic, data("expires", nil), device.BadTime},
		{"expiry before time", topic, data("expires", asked.Add(-time.Second)), device.BadTime},
		{"expiry too late", topic, data("expires", asked.Add(device.MaxCommandLife+time.Second)), device.BadTime},
		{"expiry no time", topic, data("expires", "soon"), device.NotCloudEvent},
		{"reason with a NUL", topic, data("reason", "a\x00"), device.HasNUL},
		{"reason too long", topic, data("reason", strings.Repeat("x", 2000)), device.BadCommand},
		{"RAE of no serial", topic, data("rae", "a/b"), device.BadSubject},
		{"another RAE", topic, data("rae", "rae-2"), device.TopicMismatch},
		{"topic of another session", strings.Replace(topic, session, other, 1), good, device.TopicMismatch},
		{"topic of another kind", strings.Replace(topic, "commands", "replies", 1), good, device.TopicMismatch},
		{"no topic", "", good, device.TopicMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := device.DecodeCommand(tt.topic, tt.value)
			var invalid *device.Invalid
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, tt.want, invalid.Cause, err)
		})
	}
}

func TestDecodeReplyRefuses(t *testing.T) {
	topic, err := reply().Topic()
	require.NoError(t, err)
	good, err := reply().Encode()
	require.NoError(t, err)
	for _, tt := range []struct {
		name   string
		change func(m, data map[string]any)
		want   device.Cause
	}{
		{"another outcome", func(_, d map[string]any) { d["outcome"] = "perhaps" }, device.BadCommand},
		{"done without its result", func(_, d map[string]any) { delete(d, "result") }, device.BadCommand},
		{"refused with a result", func(_, d map[string]any) { d["outcome"] = "refused" }, device.BadCommand},
		{"seq too high", func(_, d map[string]any) { d["result"] = map[string]any{"seq": 1 << 53} }, device.BadCommand},
		{"result no object", func(_, d map[string]any) { d["result"] = "8" }, device.BadCommand},
		{"no action", func(_, d map[string]any) { delete(d, "action") }, device.BadCommand},
		{"another command's id", func(_, d map[string]any) { d["command"] = session }, device.BadSubject},
		{"source no RAE", func(m, _ map[string]any) { m["source"] = "/rollcall/cli" }, device.BadSubject},
		{"another RAE", func(m, _ map[string]any) { m["source"] = "/rae/rae-2" }, device.TopicMismatch},
		{"detail with a NUL", func(_, d map[string]any) { d["detail"] = "\x00" }, device.HasNUL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := device.DecodeReply(topic, changed(t, good, tt.change))
			var invalid *device.Invalid
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, tt.want, invalid.Cause, err)
		})
	}
}

// What decodes encodes again to the same, or is too long for it.
func FuzzDecodeCommand(f *testing.F) {
	topic, err := command().Topic()
	require.NoError(f, err)
	answers, err := reply().Topic()
	require.NoError(f, err)
	for _, encode := range []func() ([]byte, error){command().Encode, reply().Encode} {
		b, err := encode()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var invalid *device.Invalid
		if c, err := device.DecodeCommand(topic, b); err != nil {
			require.ErrorAs(t, err, &invalid)
		} else if b, err := c.Encode(); err == nil {
			again, err := device.DecodeCommand(topic, b)
			require.NoError(t, err)
			require.Equal(t, c, again)
		} else {
			require.ErrorAs(t, err, &invalid)
		}
		if r, err := device.DecodeReply(answers, b); err != nil {
			require.ErrorAs(t, err, &invalid)
		} else if b, err := r.Encode(); err == nil {
			again, err := device.DecodeReply(answers, b)
			require.NoError(t, err)
			require.Equal(t, r, again)
		} else {
			require.ErrorAs(t, err, &invalid)
		}
	})
}
