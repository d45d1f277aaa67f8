// The members of Debian's memberlist (golang-github-hashicorp-memberlist-dev, the base of serf and consul) for
// `scripts/bench membership` and `scripts/bench events`. It follows the protocol of spec/bench/membership_bench.c.
//
// DefaultLANConfig as shipped. With another interval every duration of it is scaled alike. It has no event for a suspicion: the
// line that it logs at that moment is read instead.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hashicorp/memberlist"
)

var port = flag.Int("port", 20000, "of member 0")
var interval = flag.Int("interval", 1000, "ms between probes")
var timeout = flag.Int("timeout", 500, "ms for an answer")
var members = flag.Int("n", 64, "members of the cluster; needed for events only")
var events = flag.Bool("events", false, "members tell events")

var saying sync.Mutex

func monotonic() uint64 {
	var t syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&t)), 0)
	return uint64(t.Sec)*1000000000 + uint64(t.Nsec)
}

func say(at string, what string, about string) {
	saying.Lock()
	defer saying.Unlock()
	fmt.Printf("%d %s %s %s\n", monotonic(), at, what, about)
}

type observer struct {
	index string
	gone  atomic.Bool // Its timers outlive a Shutdown: their view is not that of the next member of the same name.
}

func (o *observer) say(what string, about string) {
	if !o.gone.Load() {
		say(o.index, what, about)
	}
}

func (o *observer) NotifyJoin(n *memberlist.Node)   { o.say("join", n.Name[1:]) }
func (o *observer) NotifyLeave(n *memberlist.Node)  { o.say("dead", n.Name[1:]) }
func (o *observer) NotifyUpdate(n *memberlist.Node) {}

var suspects = []byte("memberlist: Suspect n")

func (o *observer) Write(line []byte) (int, error) {
	if at := bytes.Index(line, suspects); at >= 0 {
		o.say("suspect", string(bytes.Fields(line[at+len(suspects):])[0]))
	}
	return len(line), nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "memberlist:", err)
		os.Exit(1)
	}
}

// Events of users, as serf tells them: a queue of broadcasts, from which memberlist takes what fits each datagram. A member does with
// an event that is new to it what serf does: it queues it too.
type event struct{ bytes []byte }

func (e *event) Invalidates(memberlist.Broadcast) bool { return false }
func (e *event) Message() []byte                       { return e.bytes }
func (e *event) Finished()                             {}

type round struct {
	seen  map[uint32]bool
	total uint32
}

type teller struct {
	index  string
	lock   sync.Mutex
	rounds map[uint32]*round
	last   uint64
	queue  memberlist.TransmitLimitedQueue
}

func (t *teller) NodeMeta(limit int) []byte                  { return nil }
func (t *teller) GetBroadcasts(overhead, limit int) [][]byte { return t.queue.GetBroadcasts(overhead, limit) }
func (t *teller) LocalState(join bool) []byte                { return nil }
func (t *teller) MergeRemoteState(buf []byte, join bool)     {}

// The bytes of an event: its round, its number from 0, how many the round has.
func (t *teller) NotifyMsg(b []byte) {
	r, number, total := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.rounds[r] == nil {
		t.rounds[r] = &round{map[uint32]bool{}, total}
	}
	if t.rounds[r].seen[number] {
		return
	}
	t.rounds[r].seen[number] = true
	t.last = monotonic()
	t.queue.QueueBroadcast(&event{append([]byte(nil), b...)})
	if uint32(len(t.rounds[r].seen)) == total {
		say(t.index, "whole", strconv.Itoa(int(r)))
	}
}

func (t *teller) tell(r, total uint32) {
	say(t.index, "tells", strconv.Itoa(int(r)))
	for i := uint32(0); i < total; i++ {
		b := make([]byte, 64)
		rand.Read(b) // memberlist compresses datagrams: zeros would be no events of 64 bytes.
		binary.BigEndian.PutUint32(b, r)
		binary.BigEndian.PutUint32(b[4:], i)
		binary.BigEndian.PutUint32(b[8:], total)
		t.NotifyMsg(b)
	}
}

func (t *teller) heard(r uint32) {
	t.lock.Lock()
	defer t.lock.Unlock()
	count := 0
	if t.rounds[r] != nil {
		count = len(t.rounds[r].seen)
	}
	say(t.index, "last", strconv.FormatUint(t.last, 10))
	say(t.index, "heard", strconv.Itoa(count))
}

type member struct {
	list     *memberlist.Memberlist
	observer *observer
	teller   *teller
}

func start(index int) member {
	o := &observer{index: strconv.Itoa(index)}
	c := memberlist.DefaultLANConfig()
	scale := func(d time.Duration) time.Duration { return d * time.Duration(*interval) / 1000 }
	c.GossipInterval, c.PushPullInterval = scale(c.GossipInterval), scale(c.PushPullInterval)
	c.GossipToTheDeadTime = scale(c.GossipToTheDeadTime)
	c.ProbeInterval = time.Duration(*interval) * time.Millisecond
	c.ProbeTimeout = time.Duration(*timeout) * time.Millisecond
	c.Name = "n" + o.index
	c.BindAddr, c.AdvertiseAddr = "127.0.0.1", "127.0.0.1"
	c.BindPort, c.AdvertisePort = *port+index, *port+index
	c.Events = o
	c.Logger = log.New(o, "", 0)
	t := &teller{index: o.index, rounds: map[uint32]*round{}}
	t.queue.RetransmitMult = c.RetransmitMult
	t.queue.NumNodes = func() int { return *members }
	if *events {
		c.Delegate = t
	}
	m, err := memberlist.Create(c)
	must(err)
	say(o.index, "up", o.index)
	return member{m, o, t}
}

func join(m member, seeds []string) {
	var names []string
	for _, s := range seeds {
		i, err := strconv.Atoi(s)
		must(err)
		names = append(names, fmt.Sprintf("127.0.0.1:%d", *port+i))
	}
	if len(names) > 0 {
		m.list.Join(names) // The bench checks whether it knows the others, and otherwise sends join again.
	}
}

func main() {
	flag.Parse()
	all := map[int]member{}
	say("-", "ready", "-")
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		words := strings.Fields(input.Text())
		index, err := strconv.Atoi(words[1])
		must(err)
		switch words[0] {
		case "start":
			all[index] = start(index)
			go join(all[index], words[2:])
		case "join":
			go join(all[index], words[2:])
		case "tell":
			r, _ := strconv.Atoi(words[2])
			total, _ := strconv.Atoi(words[3])
			all[index].teller.tell(uint32(r), uint32(total))
		case "heard":
			r, _ := strconv.Atoi(words[2])
			all[index].teller.heard(uint32(r))
		case "kill":
			all[index].observer.gone.Store(true)
			must(all[index].list.Shutdown()) // "A leave message will not be broadcasted prior."
			delete(all, index)
			say(words[1], "killed", words[1])
		}
	}
}
