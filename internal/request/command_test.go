package request_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/request"
)

// A command of each action that is made here is one that the contract takes.
func TestNewCommand(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 123456789, time.UTC)
	for _, action := range device.Actions {
		c, err := request.NewCommand("test", "RAE-1", uuid.NewString(), action.Name, nil, now, 0)
		require.NoError(t, err, action.Name)
		require.Equal(t, action.Deadline, c.Expires.Sub(c.Time))
		topic, err := c.Topic()
		require.NoError(t, err)
		b, err := c.Encode()
		require.NoError(t, err)
		got, err := device.DecodeCommand(topic, b)
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
	c, err := request.NewCommand("test", "RAE-1", uuid.NewString(), device.ActionPing, json.RawMessage(`{"text":"x"}`), now, time.Hour)
	require.NoError(t, err)
	require.Equal(t, time.Hour, c.Expires.Sub(c.Time))
	require.JSONEq(t, `{"text":"x"}`, string(c.Arguments))

	_, err = request.NewCommand("test", "RAE-1", uuid.NewString(), "re\x1bboot", nil, now, 0)
	require.EqualError(t, err, `there is no action "re\x1bboot"`)
	_, err = request.NewCommand("test", "RAE-1", uuid.NewString(), device.ActionPing, json.RawMessage(`{"txt":"x"}`), now, 0)
	require.ErrorContains(t, err, `ping: unknown argument "txt"`)
}
