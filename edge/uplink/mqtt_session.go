package uplink

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	pahosession "github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// writeTimeout bounds a write to a broker that does not read. Past it the
// connection is closed.
const writeTimeout = 20 * time.Second

// flight is an event that was sent and whose answer is not known.
type flight struct {
	key    uint64
	id     uint16 // MQTT packet identifier
	sent   time.Time
	done   bool
	reason byte // of the PUBACK, if done
	took   time.Duration
}

// mqttSession is paho's session state, which keeps and repeats what is in flight,
// with two things more: it sends a publication without waiting for its PUBACK,
// in the order of the calls, and it says what became of each. It needs no
// goroutine a publication, and no time limit on the broker's answer: a broker
// that withholds PUBACK while what is behind it is down must not be pressed.
type mqttSession struct {
	*state.State

	// sending is held while a packet is sent and while a connection takes over,
	// so that no packet is given to one session and written to another.
	sending sync.Mutex

	// changed has a token when flights were answered, or the connection came
	// up or went down, since it was taken.
	changed chan struct{}

	mu       sync.Mutex
	flights  []*flight // in the order they were sent
	conn     io.Writer // nil while there is no connection
	epoch    int       // counts connections
	window   int       // of this connection: the broker's Receive Maximum, less one for presence
	unusable string    // why events cannot be published on this connection, or ""
	lost     bool      // the broker lost the MQTT session: flights is no longer what it will answer
}

func newMQTTSession() *mqttSession {
	return &mqttSession{State: state.NewInMemory(), changed: make(chan struct{}, 1)}
}

func (s *mqttSession) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// ConAckReceived implements paho's SessionManager. paho calls it once for each
// connection, before anything else is sent on it.
func (s *mqttSession) ConAckReceived(conn io.Writer, cp *packets.Connect, ca *packets.Connack) error {
	most := 65535
	unusable := ""
	if p := ca.Properties; p != nil {
		if p.ReceiveMaximum != nil {
			most = int(*p.ReceiveMaximum)
		}
		switch {
		case p.MaximumQOS != nil && *p.MaximumQOS < 1:
			unusable = "the broker takes no QoS 1 messages"
		case p.MaximumPacketSize != nil && *p.MaximumPacketSize < minPacketSize:
			unusable = "the broker's maximum packet size is too small for an event"
		}
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	unanswered := s.unansweredLocked()
	s.mu.Unlock()
	if ca.SessionPresent && unanswered > most {
		// The broker allows less than is in flight; paho would repeat it
		// all the same. Let it forget: the outbox sends it anew.
		withoutSession := *ca
		withoutSession.SessionPresent = false
		ca = &withoutSession
	}
	if err := s.State.ConAckReceived(conn, cp, ca); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.window, s.unusable = conn, max(1, most-1), unusable
	s.epoch++
	if !ca.SessionPresent {
		s.lost = true
	}
	s.notify()
	return nil
}

// ConnectionLost implements paho's SessionManager.
func (s *mqttSession) ConnectionLost(dp *packets.Disconnect) error {
	s.mu.Lock()
	s.conn = nil
	s.mu.Unlock()
	s.notify()
	return s.State.ConnectionLost(dp)
}

// PacketReceived implements paho's SessionManager.
func (s *mqttSession) PacketReceived(recv *packets.ControlPacket, publications chan<- *packets.Publish) error {
	if ack, ok := recv.Content.(*packets.Puback); ok {
		s.mu.Lock()
		for _, f := range s.flights {
			if f.id == ack.PacketID && !f.done {
				f.done, f.reason, f.took = true, ack.ReasonCode, time.Since(f.sent)
				s.notify()
				break
			}
		}
		s.mu.Unlock()
	}
	return s.State.PacketReceived(recv, publications)
}

// unansweredLocked counts flights without an answer.
func (s *mqttSession) unansweredLocked() int {
	n := 0
	for _, f := range s.flights {
		if !f.done {
			n++
		}
	}
	return n
}

// status is what the sender has to know at once.
type status struct {
	up         bool
	epoch      int
	lost       bool // since the last call the broker lost the MQTT session
	window     int
	flights    int
	unanswered int
	unusable   string
	answered   []flight // the front of flights that is answered, taken off
	refused    *flight  // the oldest that was refused; it stays, unless lost
}

// poll takes the acknowledged front off the flights.
func (s *mqttSession) poll() status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := status{up: s.conn != nil, epoch: s.epoch, lost: s.lost, window: s.window, unusable: s.unusable}
	s.lost = false
	for len(s.flights) > 0 && s.flights[0].done && !isRefusal(s.flights[0].reason) {
		st.answered = append(st.answered, *s.flights[0])
		s.flights = s.flights[1:]
	}
	for _, f := range s.flights {
		if f.done && isRefusal(f.reason) {
			refused := *f
			st.refused = &refused
			break
		}
	}
	if st.lost {
		s.flights = nil
	}
	st.flights, st.unanswered = len(s.flights), s.unansweredLocked()
	return st
}

// peek is what poll would say, and changes nothing.
func (s *mqttSession) peek() status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return status{up: s.conn != nil, epoch: s.epoch, window: s.window, unusable: s.unusable, flights: len(s.flights), unanswered: s.unansweredLocked()}
}

// inFlight reports whether key is in flight.
func (s *mqttSession) inFlight(key uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flights) > 0 && s.flights[len(s.flights)-1].key == key
}

// reset forgets the flights.
func (s *mqttSession) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights = nil
}

// isRefusal reports whether a PUBACK's reason means that nobody has the event:
// an error (0x80 and above), or "no matching subscribers" (0x10), with which
// the broker has thrown it away.
func isRefusal(reason byte) bool {
	return reason >= 0x80 || reason == packets.PubackNoMatchingSubscribers
}

var errDown = errors.New("connection is down")

// send writes one event to the connection that poll saw at epoch. It does not
// wait for its PUBACK.
func (s *mqttSession) send(ctx context.Context, epoch int, key uint64, topic string, payload []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	conn, now := s.conn, s.epoch
	s.mu.Unlock()
	if conn == nil || now != epoch {
		return errDown
	}
	p := &packets.Publish{QoS: 1, Topic: topic, Payload: payload, Properties: &packets.Properties{ContentType: contentType, CorrelationData: correlation(topic, payload)}}
	// paho sends the answer there; PacketReceived has told it before.
	answer := make(chan packets.ControlPacket, 1)
	if err := s.AddToSession(ctx, identified{p, func(id uint16) { s.addFlight(key, id) }}, answer); err != nil {
		return err
	}
	return write(conn, p)
}

// closeConn closes the network connection, without a DISCONNECT.
func (s *mqttSession) closeConn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.conn.(io.Closer); ok {
		_ = c.Close()
	}
}

// addFlight notes that key is in flight as id.
func (s *mqttSession) addFlight(key uint64, id uint16) {
	if id == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights = append(s.flights, &flight{key: key, id: id, sent: time.Now()})
}

// identified tells of the identifier that a packet is given. From then on the
// session owns the packet, and may send it on another connection.
type identified struct {
	*packets.Publish
	set func(uint16)
}

// Type implements paho's session.Packet.
func (p identified) Type() byte { return packets.PUBLISH }

// SetIdentifier implements paho's session.Packet.
func (p identified) SetIdentifier(id uint16) {
	p.PacketID = id
	p.set(id)
}

var _ pahosession.SessionManager = (*mqttSession)(nil)

// write writes p within writeTimeout, or closes the connection: a packet that
// was written in part cannot be followed by another.
func write(conn io.Writer, p *packets.Publish) error {
	if d, ok := conn.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = d.SetWriteDeadline(time.Now().Add(writeTimeout))
		defer func() { _ = d.SetWriteDeadline(time.Time{}) }()
	}
	_, err := p.WriteTo(conn)
	if err != nil {
		if c, ok := conn.(io.Closer); ok {
			_ = c.Close()
		}
	}
	return err
}
