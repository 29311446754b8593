package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/verify"
)

func TestVerifyText(t *testing.T) {
	const one, two = "c02781964535e4df1077aeb1a3d6964abef86706854f307b45578ff7cd6d599d", "1a7781964535e4df"
	attribute := func(value string, seq int64) *device.Attribute {
		return &device.Attribute{Value: []byte(value), Seq: seq}
	}
	for want, r := range map[string]verify.Result{
		"equal        S  R  seq 14: edge c02781964535 = workflow c02781964535 = database c02781964535\n": {
			Verdict: verify.Equal, Compared: []verify.Comparison{{Seq: 14, Hashes: map[verify.Side]string{verify.AtEdge: one, verify.InWorkflow: one, verify.InDatabase: one}}},
		},
		`drift        S  R  seq 14 before its snapshot: edge c02781964535 ≠ workflow 1a7781964535; seq 14: edge c02781964535 = workflow c02781964535 ≠ database 1a7781964535
    network.ipv4: edge "10.0.0.5" (seq 3), workflow "10.0.0.5" (seq 3), database has none
    mdns.name: edge "100%d" (seq 9), workflow has none; the snapshot has corrected it
    seq 8 were missing
    not�printable
`: {
			Verdict: verify.Drift,
			Compared: []verify.Comparison{
				{Seq: 14, Before: true, Hashes: map[verify.Side]string{verify.AtEdge: one, verify.InWorkflow: two}},
				{Seq: 14, Hashes: map[verify.Side]string{verify.AtEdge: one, verify.InWorkflow: one, verify.InDatabase: two}},
			},
			Differences: []verify.Difference{{Attribute: "network.ipv4", Values: map[verify.Side]*device.Attribute{
				verify.AtEdge: attribute(`"10.0.0.5"`, 3), verify.InWorkflow: attribute(`"10.0.0.5"`, 3), verify.InDatabase: nil,
			}}},
			Corrected: []verify.Difference{{Attribute: "mdns.name", Values: map[verify.Side]*device.Attribute{
				verify.AtEdge: attribute(`"100%d"`, 9), verify.InWorkflow: nil,
			}}},
			Findings: []string{"seq 8 were missing"},
			Notes:    []string{"not\x1bprintable"},
		},
		"unreachable  S  R\n    unreachable: edge: no snapshot\n": {Verdict: verify.Unreachable, Unreachable: []string{"edge: no snapshot"}},
	} {
		r.Session, r.RAE = "S", "R"
		require.Equal(t, want, resultText(r))
	}
	require.Equal(t, "3 sessions: 1 equal, 1 drift, 1 unreachable", summaryText(verify.Summary{Sessions: 3, Equal: 1, Drift: 1, Unreachable: 1}))
}
