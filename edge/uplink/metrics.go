package uplink

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label result.
const (
	resultAcked   = "acked"
	resultRefused = "refused"
	resultUnheard = "unheard"
)

// metrics of an uplink. Names and labels are an interface.
type metrics struct {
	registerer prometheus.Registerer
	registered []prometheus.Collector

	published *prometheus.CounterVec
	puback    prometheus.Histogram
	connected prometheus.Gauge
	connects  prometheus.Counter

	sessionsLost prometheus.Counter

	received   prometheus.Counter
	subscribed prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		registerer: reg,
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_edge_publishes_total", Help: "Answers of the broker to published events, by result: acked; refused (PUBACK reason 0x80 and above); unheard (no one was subscribed). What is not acked is sent again."}, []string{"result"}),
		puback: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_edge_puback_seconds", Help: "Time from sending an event to its PUBACK.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18)}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_edge_connected", Help: "1 while connected to the broker."}),
		connects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_edge_connects_total", Help: "Connections made to the broker."}),
		sessionsLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_edge_mqtt_sessions_lost_total", Help: "Connections at which the broker did not have the MQTT session that this RAE had with it: commands that waited there are gone."}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_edge_commands_received_total", Help: "Messages received on the command topics, redeliveries among them."}),
		subscribed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_edge_commands_subscribed", Help: "1 while connected and subscribed to this RAE's commands."}),
	}
	for _, result := range []string{resultAcked, resultRefused, resultUnheard} {
		m.published.WithLabelValues(result)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.published, m.puback, m.connected, m.connects, m.sessionsLost, m.received, m.subscribed} {
		if err := reg.Register(c); err != nil {
			m.unregister()
			return nil, fmt.Errorf("register uplink metrics: %w", err)
		}
		m.registered = append(m.registered, c)
	}
	return m, nil
}

func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
}
