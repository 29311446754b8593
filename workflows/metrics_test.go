package workflows_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/sdkmetrics"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Metric names are an interface: dashboards and alerts use them.
func TestMetricNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewPedanticRegistry()
		metrics, err := sdkmetrics.New(registry)
		require.NoError(t, err)
		db := &database{older: []string{"11111111-3c6e-4f4e-9f3a-0c0f3f0a9b11"}}
		db.fail = func(_ context.Context, _ string, in *workflows.ApplyRequest) error {
			if in != nil && in.AsOf == 9 && db.regularTries(workflows.ActivityApplyBatch) == 0 {
				return outage()
			}
			return nil
		}
		h := newHarnessWith(t, db, metrics)
		full := delta(1)
		for _, c := range "abcdefghijklmnopqrstuvwxyz" {
			for _, d := range "abcdefghij" { // 260
				full.Attributes[string(c)+string(d)] = device.Attribute{Value: []byte("1"), Seq: 1, At: full.Time}
			}
		}
		withMAC(full)
		h.at(0, func() { h.signal(batch(1, full)) })
		h.at(1*time.Second, func() { h.signal(batch(1, full)) })
		h.at(2*time.Second, func() { h.signal("not a batch") })
		h.at(3*time.Second, func() { h.signal(batch(2, delta(4, "aa"))) })
		h.at(4*time.Second, func() {
			h.signal(batch(3, snapshot(5, map[string]device.Attribute{"aa": attributeAt(3)})))
		})
		h.at(4500*time.Millisecond, func() {
			h.UpdateWorkflowNoRejection(workflows.UpdateRequestSnapshot, "", t, workflows.SnapshotRequestArgs{})
		})
		h.at(4700*time.Millisecond, func() {
			h.signal(batch(4, snapshot(6, map[string]device.Attribute{"aa": attributeAt(2)}))) // "aa" was 3
		})
		h.at(4800*time.Millisecond, func() { h.signal(batch(4, delta(8, "aa"))) })
		h.at(4900*time.Millisecond, func() { h.signal(batch(4, delta(7, "aa"))) }) // late, and stale
		h.at(5*time.Second, func() { h.signal(batch(4, closed(9))); h.signal(batch(5, delta(10, "a"))) })
		h.at(5*time.Second+time.Millisecond, func() { h.signal(batch(6, delta(11, "a"))) })
		h.run(input())
		require.NoError(t, h.GetWorkflowError())

		h = newHarnessWith(t, &database{}, metrics)
		h.SetContinueAsNewSuggested(true)
		h.at(0, func() { h.signal(batch(1, delta(1, "a"))) })
		h.run(input())

		families, err := registry.Gather()
		require.NoError(t, err)
		var got []string
		for _, f := range families {
			if !strings.HasPrefix(f.GetName(), "rollcall_session_") {
				continue
			}
			var labels []string
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					switch l.GetName() {
					case "namespace", "task_queue", "workflow_type", "client_name", "worker_type": // the SDK's
					default:
						labels = append(labels, l.GetName()+"="+l.GetValue())
					}
				}
			}
			slices.Sort(labels)
			got = append(got, f.GetName()+"{"+strings.Join(slices.Compact(labels), ",")+"}")
		}
		require.Equal(t, []string{
			"rollcall_session_after_close_total{}",
			"rollcall_session_continued_total{reason=suggested}",
			"rollcall_session_drift_total{}",
			"rollcall_session_duplicates_total{}",
			"rollcall_session_ended_total{reason=closed}",
			"rollcall_session_escalations_total{activity_type=ApplyBatch}",
			"rollcall_session_events_total{}",
			"rollcall_session_gaps_total{}",
			"rollcall_session_over_limit_total{}",
			"rollcall_session_refused_batches_total{cause=payload}",
			"rollcall_session_repaired_total{}",
			"rollcall_session_requests_total{outcome=sent}",
			"rollcall_session_stale_total{}",
			"rollcall_session_superseded_total{}",
		}, got)
	})
}
