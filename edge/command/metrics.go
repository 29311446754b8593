package command

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// Values of the label result, beside the outcomes.
const (
	resultRepeated = "repeated" // answered before, and again
	resultInvalid  = "invalid"  // breaks the contract; no answer
	resultDropped  = "dropped"  // expired while the outbox was full; no answer
)

// metrics of a handler. Names and labels are an interface.
type metrics struct {
	registerer prometheus.Registerer
	commands   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{registerer: reg, commands: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rollcall_edge_commands_total",
		Help: "Commands dealt with, by result: done, refused, expired, unknown-session, unsupported; repeated (answered as before); invalid and dropped, which have no answer."}, []string{"result"})}
	for _, result := range []string{string(device.Done), string(device.Refused), string(device.Expired), string(device.UnknownSession), string(device.Unsupported), resultRepeated, resultInvalid, resultDropped} {
		m.commands.WithLabelValues(result)
	}
	if reg != nil {
		if err := reg.Register(m.commands); err != nil {
			return nil, fmt.Errorf("register command metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m.registerer != nil {
		m.registerer.Unregister(m.commands)
	}
}

func (m *metrics) count(result string) { m.commands.WithLabelValues(result).Inc() }
