package dlq

import (
	"slices"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// Reasons are all that a letter may have, sorted.
func Reasons() []string {
	reasons := []string{kafka.ReasonKafkaLimit, kafka.ReasonTopic, kafka.ReasonDecompress}
	for _, cause := range device.Causes {
		reasons = append(reasons, string(cause))
	}
	slices.Sort(reasons)
	return reasons
}
