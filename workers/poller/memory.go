package poller

import (
	"fmt"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// The terms of Options.Memory that are the same for everybody.
const (
	// baseBytes is the program itself: runtime, clients, connections, metrics.
	baseBytes = 48 << 20
	// signalBytes is one signal while it is encoded and sent.
	signalBytes = 2 * device.MaxSignalBytes
	// turnBytes is what one turn of the poll loop takes past a mark.
	turnBytes = pollRecords * device.MaxEventBytes
	// fetches is how many fetches may be on their way or waiting to be polled,
	// and expansion what a record batch may grow to when it is decompressed.
	fetches   = 4
	expansion = 4
)

// setBudgets derives the budgets that are not given from o.Memory: two fifths of
// what the fixed terms leave for what is folded, a quarter of that for one
// partition, and half for what is fetched.
func (o *Options) setBudgets() {
	free := max(0, o.Memory-baseBytes-turnBytes-o.WindowMax*signalBytes)
	or(&o.TotalBytes, max(free*2/5, device.MaxSignalBytes))
	or(&o.PartitionBytes, max(o.TotalBytes/4, device.MaxSignalBytes))
	or(&o.FetchBytes, min(max(free/(2*fetches*(1+expansion)), 1<<20), 64<<20))
}

// worstCase is the formula of Options.Memory.
func (o *Options) worstCase() int {
	return baseBytes + turnBytes + o.WindowMax*signalBytes + o.TotalBytes + fetches*(1+expansion)*o.FetchBytes
}

func (o *Options) checkMemory() error {
	if w := o.worstCase(); w > o.Memory {
		return fmt.Errorf("memory %d MiB is less than what window, total and fetch bytes may come to, %d MiB: raise it or lower them",
			o.Memory>>20, (w+1<<20-1)>>20)
	}
	return nil
}
