package workflows_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
)

// Run it with -fuzzminimizetime 10x: coverage differs from run to run here, and
// minimizing by it would take all the time.
//
// Whatever a signal holds, the session goes on, counts it, and leaves nothing
// waiting.
func FuzzSignal(f *testing.F) {
	good, err := json.Marshal(batch(1, delta(1, "a"), delta(3, "b"), closed(9)))
	require.NoError(f, err)
	f.Add([]byte("json/plain"), good)
	f.Add([]byte("json/plain"), []byte(`{"v":1,"topic":"t","partition":-1,"first":0,"last":9223372036854775807,"records":1}`))
	f.Add([]byte("json/plain"), bytes.Replace(good, []byte(`"partition":3`), []byte(`"partition":-1`), 1))
	f.Add([]byte("json/plain"), bytes.Replace(good, []byte(`"last":3`), []byte(`"last":9223372036854775807`), 1))
	f.Add([]byte("json/plain"), []byte(`{"v":2,"topic":"t","first":1,"last":2}`))
	f.Add([]byte("json/plain"), []byte(`[`))
	f.Add([]byte("binary/null"), []byte(nil))
	f.Fuzz(func(t *testing.T, encoding, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			db := &database{}
			h := newHarness(t, db)
			payload := &commonpb.Payload{Metadata: map[string][]byte{converter.MetadataEncoding: encoding}, Data: data}
			h.at(0, func() { h.signal(converter.NewRawValue(payload)) })
			h.at(time.Second, func() { h.signal("not a batch") })
			h.stop(time.Minute)
			h.run(input())
			if err := h.GetWorkflowError(); err != nil {
				require.True(t, temporal.IsCanceledError(err), "%v", err)
			} else {
				require.NotZero(t, h.view().Closed)
			}
			v := h.view()
			require.Zero(t, v.Waiting)
			require.Equal(t, v.Positions, db.positions)
			_, err := json.Marshal(v)
			require.NoError(t, err)
		})
	})
}
