package load

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestEveryTimeFallsIntoItsBucket(t *testing.T) {
	for shift := range 40 {
		for _, ns := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1, 3 << shift / 2} {
			i := bucketOf(ns)
			if lowest(i) > ns || lowest(i+1) <= ns {
				t.Errorf("%d ns in bucket %d, which is %d to %d", ns, i, lowest(i), lowest(i+1))
			}
		}
	}
	if i := bucketOf(1 << 60); i != bucketCount-1 {
		t.Errorf("a year is in bucket %d", i)
	}
}

func TestQuantilesAreThoseOfTheSortedTimes(t *testing.T) {
	var whole, half Histogram
	var times []time.Duration
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 10_000 {
		d := time.Duration(random.ExpFloat64() * float64(time.Millisecond))
		times = append(times, d)
		if i%2 == 0 {
			whole.Add(d)
		} else {
			half.Add(d)
		}
	}
	whole.Merge(&half)
	if whole.Count() != len(times) {
		t.Fatalf("%d counted, want %d", whole.Count(), len(times))
	}
	slices.Sort(times)
	for _, share := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
		want := times[max(0, int(share*float64(len(times)))-1)]
		if got := whole.Quantile(share); float64(got) < 0.95*float64(want) || float64(got) > 1.05*float64(want)+1 {
			t.Errorf("quantile %v: %v, want about %v", share, got, want)
		}
	}
	if d := new(Histogram).Quantile(0.5); d != 0 {
		t.Errorf("median of nothing: %v", d)
	}
}
