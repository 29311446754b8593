package poller

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the poller. Their names are an interface: a test freezes them.
// franz-go's own are beside them, as rollcall_poller_kafka_….
type metrics struct {
	records, applied, duplicates, resignals, deadLetterFailures, rewinds prometheus.Counter

	signals, deadLetters, commits, ackReads, rebalances *prometheus.CounterVec

	inFlight, ready, buffered, paused, stopped prometheus.Gauge

	lag *prometheus.GaugeVec

	signalSeconds, ackSeconds prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "rollcall_poller_" + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "rollcall_poller_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "rollcall_poller_" + name, Help: help})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_poller_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		})
	}
	return &metrics{
		records:            counter("records_total", "Records fetched from Kafka."),
		applied:            counter("applied_records_total", "Records whose signalled batch is in the database."),
		duplicates:         counter("duplicate_records_total", "Records that were applied before they were fetched: no signal was sent."),
		resignals:          counter("resignals_total", "Batches signalled again because they were not applied in time."),
		deadLetterFailures: counter("dead_letter_failures_total", "Produces of a dead letter that failed and are tried again."),
		rewinds:            counter("rewinds_total", "Records whose offset is not above those before: the log was cut or made again."),

		signals:     vec("signals_total", "SignalWithStart calls by outcome: accepted, busy, outage, refused.", "outcome"),
		deadLetters: vec("dead_letters_total", "Records in the dead-letter topic, acknowledged, by reason.", "reason"),
		commits:     vec("commits_total", "Offset commits by outcome: ok, error.", "outcome"),
		ackReads:    vec("ack_reads_total", "Reads of ingest positions by outcome: ok, error.", "outcome"),
		rebalances:  vec("rebalances_total", "Rebalance callbacks by kind: assigned, revoked, lost.", "kind"),

		inFlight: gauge("in_flight", "Sessions with a batch sent and not yet applied."),
		ready:    gauge("ready_lanes", "Sessions with a fold that waits for the window."),
		buffered: gauge("buffered_bytes", "Bytes held in folds and dead letters, as counted against the budgets."),
		paused:   gauge("paused_partitions", "Partitions whose fetch is paused."),
		stopped:  gauge("stopped_lanes", "Sessions whose signal Temporal refuses for good. Alert on any."),

		lag: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rollcall_poller_lag_records", Help: "Records between what is done and the partition's end when last fetched.",
		}, []string{"partition"}),

		signalSeconds: seconds("signal_seconds", "Time a signal took to be accepted."),
		ackSeconds:    seconds("ack_seconds", "Time from a signal's acceptance to the read that found it applied."),
	}
}

func label(partition int32) string { return strconv.Itoa(int(partition)) }
