package poller

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// rejoins are the errors that are not retriable by Kafka's own word, and that
// the client recovers from: it joins its group again, or resets an offset.
var rejoins = []error{
	kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.FencedMemberEpoch, kerr.StaleMemberEpoch,
	kerr.RebalanceInProgress, kerr.MemberIDRequired, kerr.OffsetOutOfRange,
}

// isFatal reports whether the client does not recover from err by itself, so
// that a new one has to take its place. Only a broker's answer is fatal:
// everything else, such as a connection that fails, may pass. That a topic was
// deleted and made anew is found by kafka.TopicWatch.
func isFatal(err error) bool {
	var protocol *kerr.Error
	if !errors.As(err, &protocol) || protocol.Retriable {
		return false
	}
	for _, e := range rejoins {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// fatalError is the error of a fetch that a client does not recover from by itself,
// or nil. A member that was thrown out of its group joins again: that is the
// client's to do.
func fatalError(fetches kgo.Fetches) error {
	if fetches.IsClientClosed() {
		return kgo.ErrClientClosed
	}
	var found error
	fetches.EachError(func(_ string, _ int32, err error) {
		if found == nil && isFatal(err) {
			found = err
		}
	})
	return found
}
