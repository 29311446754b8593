package kafka

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Anew has a consumer group's member begin at the start of a topic that was made
// anew. A group's offsets are by the topic's name, and a commit of the old topic's
// may have come after the new one was made: taken for the new topic's, it would
// pass over what is there. The zero Anew is ready to use.
type Anew struct {
	mu     sync.Mutex
	placed map[int32]bool // partitions that have begun since; nil: nothing was made anew
}

// Recreated notes that the topic is a new one.
func (a *Anew) Recreated() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.placed = map[int32]bool{}
}

// Place forgets the committed offset of each partition that begins for the first
// time since the topic was made anew. Call it in kgo.AdjustFetchOffsetsFn. What
// another member has read of the new topic meanwhile is then read again.
func (a *Anew) Place(offsets map[int32]kgo.Offset) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.placed == nil {
		return
	}
	for n := range offsets {
		if !a.placed[n] {
			a.placed[n] = true
			offsets[n] = kgo.NewOffset().AtStart()
		}
	}
}
