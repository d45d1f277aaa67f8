// The members of Debian's memberlist (golang-github-hashicorp-memberlist-dev, the base of serf and consul) for
// `scripts/bench membership`. It follows the protocol of spec/bench/membership_bench.c.
//
// DefaultLANConfig as shipped. With another interval every duration of it is scaled alike. It has no event for a suspicion: the
// line that it logs at that moment is read instead.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"log"
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
var _ = flag.Int("n", 64, "members of the cluster; not needed here")

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

type member struct {
	list     *memberlist.Memberlist
	observer *observer
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
	m, err := memberlist.Create(c)
	must(err)
	say(o.index, "up", o.index)
	return member{m, o}
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
	members := map[int]member{}
	say("-", "ready", "-")
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		words := strings.Fields(input.Text())
		index, err := strconv.Atoi(words[1])
		must(err)
		switch words[0] {
		case "start":
			members[index] = start(index)
			go join(members[index], words[2:])
		case "join":
			go join(members[index], words[2:])
		case "kill":
			members[index].observer.gone.Store(true)
			must(members[index].list.Shutdown()) // "A leave message will not be broadcasted prior."
			delete(members, index)
			say(words[1], "killed", words[1])
		}
	}
}
