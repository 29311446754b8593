package device_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
)

func TestEncodeDecodeRoundTrip(t *testing.T) {
	topic, err := device.SessionTopic(rae, session, device.KindEvents)
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		for _, e := range devicetest.History(rae, session, 12).Draw(t, "history") {
			b, err := e.Encode()
			require.NoError(t, err)
			got, err := device.DecodeRecord(topic, b)
			require.NoError(t, err)
			if len(e.Attributes) == 0 {
				e.Attributes = got.Attributes
			}
			require.Equal(t, e, got)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	topic := "rollcall/v1/rae-1/sessions/" + session + "/events"
	good := func(change func(m map[string]any)) string {
		b, err := event(device.Delta, 7, map[string]device.Attribute{"network.ipv4": attr(7, `"10.0.0.7"`)}).Encode()
		require.NoError(t, err)
		var m map[string]any
		require.NoError(t, json.Unmarshal(b, &m))
		change(m)
		b, err = json.Marshal(m)
		require.NoError(t, err)
		return string(b)
	}
	data := func(name string, v any) string {
		return good(func(m map[string]any) { m["data"].(map[string]any)[name] = v })
	}
	attribute := func(name string, v any) string {
		return data("attributes", map[string]any{name: v})
	}
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	snapshot := func(d string) string {
		return `{"specversion":"1.0","id":"` + session + `/7","source":"/rae/rae-1","type":"rollcall.device.snapshot.v1","subject":"` + session + `","time":"2026-03-01T08:00:00Z","data":` + d + `}`
	}
	for _, tt := range []struct {
		name, topic, value string
		want               device.Cause
	}{
		{"not JSON", topic, `{"seq":`, device.NotJSON},
		{"empty", topic, ``, device.NotJSON},
		{"JSON but no object", topic, `[1]`, device.NotCloudEvent},
		{"no CloudEvent", topic, `{"seq":1}`, device.NotCloudEvent},
		{"unknown type", topic, good(func(m map[string]any) { m["type"] = "rollcall.device.rebooted.v1" }), device.UnknownType},
		{"foreign type", topic, good(func(m map[string]any) { m["type"] = "com.example.thing" }), device.UnknownType},
		{"other version of a type", topic, good(func(m map[string]any) { m["type"] = "rollcall.device.delta.v2" }), device.UnknownType},
		{"topic of another session", "rollcall/v1/rae-1/sessions/11111111-1111-4111-8111-111111111111/events", good(func(map[string]any) {}), device.TopicMismatch},
		{"topic of another RAE", "rollcall/v1/rae-2/sessions/" + session + "/events", good(func(map[string]any) {}), device.TopicMismatch},
		{"topic of another kind", "rollcall/v1/rae-1/sessions/" + session + "/replies", good(func(map[string]any) {}), device.TopicMismatch},
		{"no topic", "", good(func(map[string]any) {}), device.TopicMismatch},
		{"too large", topic, `"` + strings.Repeat("x", device.MaxEventBytes) + `"`, device.TooLarge},
		{"broken UTF-8", topic, "{\"a\":\"\xff\"}", device.NotUTF8},
		{"NUL in a value", topic, attribute("x", "a\x00b"), device.HasNUL},
		{"NUL in a key of a value", topic, attribute("x", map[string]any{"a\x00": 1}), device.HasNUL},
		{"seq 0", topic, data("seq", 0), device.BadSeq},
		{"seq negative", topic, data("seq", -4), device.BadSeq},
		{"seq too high", topic, data("seq", 1<<53), device.BadSeq},
		{"seq no number", topic, data("seq", "seven"), device.NotCloudEvent},
		{"delta with seq 1", topic, data("seq", 1), device.BadSeq},
		{"id of another seq", topic, good(func(m map[string]any) { m["id"] = session + "/8" }), device.BadSubject},
		{"subject no UUID", topic, good(func(m map[string]any) { m["subject"] = "tv" }), device.BadSubject},
		{"source no RAE", topic, good(func(m map[string]any) { m["source"] = "rae-1" }), device.BadSubject},
		{"no time", topic, good(func(m map[string]any) { delete(m, "time") }), device.BadTime},
		{"attribute in capitals", topic, attribute("Network.IPv4", 1), device.BadAttribute},
		{"attribute with an empty part", topic, attribute("network..ipv4", 1), device.BadAttribute},
		{"value too large", topic, attribute("x", strings.Repeat("x", device.MaxValueBytes)), device.BadAttribute},
		{"value too deep", topic, strings.Replace(attribute("x", "DEEP"), `"DEEP"`, deep, 1), device.BadAttribute},
		{"number no double holds", topic, strings.Replace(attribute("x", "BIG"), `"BIG"`, "1e999", 1), device.BadAttribute},
		{"snapshot that miscounts", topic, snapshot(`{"seq":7,"count":2,"hash":"","attributes":{}}`), device.BadSnapshot},
		{"snapshot with a wrong hash", topic, snapshot(`{"seq":7,"count":0,"hash":"00","attributes":{}}`), device.BadSnapshot},
		{"snapshot of the future", topic, snapshot(`{"seq":7,"count":1,"hash":"00","attributes":{"x":{"value":1,"seq":9,"at":"2026-03-01T08:00:00Z"}}}`), device.BadSnapshot},
		{"snapshot with a null", topic, snapshot(`{"seq":7,"count":1,"hash":"00","attributes":{"x":{"value":null,"seq":2,"at":"2026-03-01T08:00:00Z"}}}`), device.BadSnapshot},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := device.DecodeRecord(tt.topic, []byte(tt.value))
			var invalid *device.Invalid
			require.True(t, errors.As(err, &invalid), "got %v", err)
			require.Equal(t, tt.want, invalid.Cause, err)
		})
	}
}

func TestDecodeIgnoresUnknownFields(t *testing.T) {
	b := `{"specversion":"1.0","id":"` + session + `/2","source":"/rae/rae-1","type":"rollcall.device.delta.v1","subject":"` + session +
		`","time":"2026-03-01T08:00:00.123456Z","traceparent":"00-x","data":{"seq":2,"attributes":{"x":1.0},"later":true}}`
	e, err := device.Decode([]byte(b))
	require.NoError(t, err)
	require.Equal(t, `1`, string(e.Attributes["x"].Value))
	require.Equal(t, 123_000_000, e.Time.Nanosecond(), "times are kept to the millisecond")
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		` { "b" : 1.0, "a" : [ 1e2 , -0 ] } `: `{"a":[100,0],"b":1}`,
		`"<é\u00e9&>"`:                        `"<éé&>"`,
		`12345678901234567890`:                `12345678901234567000`,
		`null`:                                `null`,
	} {
		got, err := device.Canonical([]byte(in))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

func TestTopics(t *testing.T) {
	for _, bad := range []string{"", "a/b", "a+", "#", "a\x00b", "a b", strings.Repeat("x", 200), "\xff"} {
		_, err := device.SessionTopic(bad, session, device.KindEvents)
		require.Error(t, err, "%q", bad)
	}
	for _, bad := range []string{"", "tv", strings.ToUpper(session), "00000000-0000-0000-0000-000000000000", "{" + session + "}"} {
		_, err := device.SessionTopic(rae, bad, device.KindEvents)
		require.Error(t, err, "%q", bad)
	}
	topic, err := device.SessionTopic("RAE-0001.x", session, device.KindCommands)
	require.NoError(t, err)
	got, err := device.ParseTopic(topic)
	require.NoError(t, err)
	require.Equal(t, device.Topic{RAE: "RAE-0001.x", Session: session, Kind: device.KindCommands}, got)
}

// Whatever decodes must encode again to the same event: what the platform
// accepts it can also pass on.
// A value is the same by itself, where most are recognized at a glance, as in a
// list, where none is.
func TestCanonicalAtAGlance(t *testing.T) {
	value := rapid.OneOf(
		rapid.Map(rapid.String(), func(s string) string {
			b, err := json.Marshal(s)
			require.NoError(t, err)
			return string(b)
		}),
		rapid.StringMatching(`"[ -~]{0,12}"`),
		rapid.StringMatching(`-?[0-9]{1,18}`),
		rapid.StringMatching(`-?[0-9]{1,3}(\.[0-9]{1,3})?(e[0-9]{1,2})?`),
		rapid.SampledFrom([]string{"null", "true", "false", "0", "-0", "nul", "tru", "", `"`, `"\u0000"`, `"\ud800"`, `"é"`, `"<&>"`, "01", "-", " 1"}),
	)
	rapid.Check(t, func(t *rapid.T) {
		v := value.Draw(t, "value")
		alone, err := device.Canonical([]byte(v))
		listed, listErr := device.Canonical([]byte("[" + v + "]"))
		if v == "" {
			return // a list of nothing is one
		}
		require.Equal(t, listErr == nil, err == nil, "%q: %v, in a list: %v", v, err, listErr)
		if err == nil {
			require.Equal(t, string(listed), "["+string(alone)+"]")
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, e := range []device.Event{
		event(device.Opened, 1, map[string]device.Attribute{"x": attr(1, `{"a":[1,2]}`)}),
		event(device.Delta, 2, map[string]device.Attribute{"x": attr(2, `null`)}),
		event(device.Snapshot, 3, map[string]device.Attribute{"y": attr(1, `"z"`)}),
		event(device.Closed, 4, nil),
	} {
		b, err := e.Encode()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := device.Decode(b)
		if err != nil {
			var invalid *device.Invalid
			require.ErrorAs(t, err, &invalid)
			return
		}
		b, err = e.Encode()
		if err != nil { // the canonical form of a value may be longer than what came
			var invalid *device.Invalid
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, device.TooLarge, invalid.Cause)
			return
		}
		again, err := device.Decode(b)
		require.NoError(t, err)
		require.Equal(t, e, again)
	})
}
