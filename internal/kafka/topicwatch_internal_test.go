package kafka

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
)

// A topic that is another one under its name is told once, and a broker that is
// behind tells nothing.
func TestTopicMadeAnewIsToldOnce(t *testing.T) {
	var told []string
	w := NewTopicWatch(nil, slog.New(slog.DiscardHandler), NewTopicMetrics(prometheus.NewRegistry(), "x"), func(topic string) { told = append(told, topic) }, "t")
	first, second := kadm.TopicID{1}, kadm.TopicID{2}
	for _, look := range []struct {
		id           kadm.TopicID
		there, calm  bool
		recreations  int
		whatHappened string
	}{
		{first, true, true, 0, "known"},
		{first, true, true, 0, "the same"},
		{kadm.TopicID{}, false, false, 0, "gone"},
		{second, true, true, 1, "made anew"},
		{first, true, false, 1, "a broker that is behind"},
		{second, true, true, 1, "the same again"},
	} {
		require.Equal(t, look.calm, w.note("t", look.id, look.there, false), look.whatHappened)
		require.Len(t, told, look.recreations, look.whatHappened)
	}
}
