// The client of etcd for spec/bench/core/processes.lua: `core_bench_etcd ADDRESS CLIENTS LEASES TTL_S`.
// Ten connections; on "begin" it takes its leases and keeps them alive by clientv3's own KeepAlive; on "counts" it prints the number of
// answered keep-alives; it ends with its stdin.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.uber.org/zap"
)

var renewals int64

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "core_bench_etcd:", err)
		os.Exit(2)
	}
}

// It warns while the server starts.
func quiet() *zap.Config {
	config := zap.NewProductionConfig()
	config.Level = zap.NewAtomicLevelAt(zap.ErrorLevel)
	return &config
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	must(err)
	return n
}

// Take leases over one renewal interval, and keep each alive.
func take(client *clientv3.Client, leases int, ttl int64, done *sync.WaitGroup) {
	defer done.Done()
	for i := 0; i < leases; i++ {
		granted, err := client.Grant(context.Background(), ttl)
		must(err)
		answers, err := client.KeepAlive(context.Background(), granted.ID)
		must(err)
		go func() {
			for answer := range answers {
				if answer != nil {
					atomic.AddInt64(&renewals, 1)
				}
			}
		}()
		time.Sleep(3 * time.Second / time.Duration(leases))
	}
}

func main() {
	clients, leases, ttl := number(os.Args[2]), number(os.Args[3]), int64(number(os.Args[4]))
	var all []*clientv3.Client
	for i := 0; i < clients; i++ {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: 20 * time.Second, LogConfig: quiet()})
		must(err)
		for tries := 0; ; tries++ {
			timeout, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err = client.Get(timeout, "ready")
			cancel()
			if err == nil {
				break
			}
			if tries == 20 {
				must(err)
			}
		}
		all = append(all, client)
	}
	fmt.Println("connected all")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "begin":
			var done sync.WaitGroup
			for _, client := range all {
				done.Add(1)
				go take(client, leases/clients, ttl, &done)
			}
			done.Wait()
			fmt.Println("holds all")
		case "counts":
			fmt.Println("renewals", atomic.LoadInt64(&renewals))
		}
	}
}
