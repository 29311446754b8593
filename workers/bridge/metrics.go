package bridge

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the forwarder. Their names are an interface: a test freezes them.
type metrics struct {
	forwarded, deadLetters *prometheus.CounterVec
	failed, refused        prometheus.Counter
	inFlight               prometheus.Gauge
	seconds                prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		forwarded:   f.NewCounterVec(prometheus.CounterOpts{Name: "rollcall_bridge_forwarded_total", Help: "Messages that are durable, by Kafka topic."}, []string{"topic"}),
		deadLetters: f.NewCounterVec(prometheus.CounterOpts{Name: "rollcall_bridge_dead_letters_total", Help: "Messages in the dead-letter topic, acknowledged, by reason."}, []string{"reason"}),
		failed:      f.NewCounter(prometheus.CounterOpts{Name: "rollcall_bridge_failed_total", Help: "Messages that were not acknowledged by Kafka, nor to the sender."}),
		refused:     f.NewCounter(prometheus.CounterOpts{Name: "rollcall_bridge_refused_total", Help: "Messages on topics that are not forwarded."}),
		inFlight:    f.NewGauge(prometheus.GaugeOpts{Name: "rollcall_bridge_in_flight", Help: "Messages that wait for Kafka's acknowledgement."}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_bridge_forward_seconds", Help: "Time from a message's arrival to Kafka's acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
}

// frontMetrics of the subscriber.
type frontMetrics struct {
	received, connections, disconnects prometheus.Counter
	sessionsLost, takeovers            prometheus.Counter
	connected                          prometheus.Gauge
}

func newFrontMetrics(r prometheus.Registerer) *frontMetrics {
	f := promauto.With(r)
	return &frontMetrics{
		received:     f.NewCounter(prometheus.CounterOpts{Name: "rollcall_bridge_received_total", Help: "Messages received from the MQTT broker, redeliveries among them."}),
		connections:  f.NewCounter(prometheus.CounterOpts{Name: "rollcall_bridge_mqtt_connections_total", Help: "Connections to the MQTT broker that were subscribed."}),
		disconnects:  f.NewCounter(prometheus.CounterOpts{Name: "rollcall_bridge_mqtt_disconnects_total", Help: "Connections that ended by a failure, those given up for Kafka's among them."}),
		sessionsLost: f.NewCounter(prometheus.CounterOpts{Name: "rollcall_bridge_mqtt_sessions_lost_total", Help: "Connections at which the broker did not have the MQTT session that the bridge had with it: what the broker held for it is gone."}),
		takeovers:    f.NewCounter(prometheus.CounterOpts{Name: "rollcall_bridge_mqtt_takeovers_total", Help: "Connections that the broker ended because another client connected with the same client ID, or without a reason within 30 s."}),
		connected:    f.NewGauge(prometheus.GaugeOpts{Name: "rollcall_bridge_mqtt_connected", Help: "1 while connected and subscribed."}),
	}
}

// Values of the labels result and reason of the downlink's metrics.
const (
	resultSent       = "sent"
	resultExpired    = "expired"
	resultDeadLetter = "dead-letter"

	retryUnheard = "unheard"
	retryFailed  = "failed"
)

// downMetrics of the downlink.
type downMetrics struct {
	commands, retries *prometheus.CounterVec
	held              prometheus.Gauge
	seconds           prometheus.Histogram
}

func newDownMetrics(r prometheus.Registerer) *downMetrics {
	f := promauto.With(r)
	m := &downMetrics{
		commands: f.NewCounterVec(prometheus.CounterOpts{Name: "rollcall_bridge_commands_total", Help: "Commands done with, by result: sent (the MQTT broker has acknowledged it), expired (before it could be sent), dead-letter (it is no command)."}, []string{"result"}),
		retries:  f.NewCounterVec(prometheus.CounterOpts{Name: "rollcall_bridge_command_retries_total", Help: "Tries that the MQTT broker did not take, by reason: unheard (no session subscribes: the RAE is unknown to the broker), failed (no connection, no PUBACK, or refused)."}, []string{"reason"}),
		held:     f.NewGauge(prometheus.GaugeOpts{Name: "rollcall_bridge_commands_held", Help: "Commands fetched and not done with."}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_bridge_command_seconds", Help: "Time from a command's Kafka timestamp to the MQTT broker's acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
	}
	for _, result := range []string{resultSent, resultExpired, resultDeadLetter} {
		m.commands.WithLabelValues(result)
	}
	for _, reason := range []string{retryUnheard, retryFailed} {
		m.retries.WithLabelValues(reason)
	}
	return m
}
