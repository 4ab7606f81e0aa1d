"""From records to outages, phases and a verdict: pandas, frame in, frame out; never sees a host.

Times in frames are nanoseconds (``_ns``) since ``migrate`` was asked for, in the peer's clock,
unless a column says otherwise.  An outage's exact definition and its error bar are in
docs/method.md.

``packets``: one row per frame of a flow, in the order sent (index 0..n-1)

    ============  =======  ==================================================================
    sequence      uint32   number in the frame; strictly rising
    scheduled_ns  int64    when the frame was due; sender's clock
    sent_ns       int64    when it was sent; sender's clock
    returned_ns   Int64    first arrival at the receiver; NA = lost; receiver's clock
    copies        int64    arrivals: 0 = lost, 2 or more = duplicated
    corrupted     bool     a copy arrived with a changed payload
    short         bool     a copy arrived shorter than it was sent
    reordered     bool     first arrival after that of a frame with a higher number (RFC 4737)
    ============  =======  ==================================================================

    Sender and receiver are the peer, except the receiver of a to-guest flow and the sender of
    a from-guest flow: theirs is the guest's own clock, which no outage depends on.

``outages``: one row per outage, in time order

    ============  =======  ==================================================================
    start_ns      int64    round-trip and to-guest: send time of the last frame that arrived;
                           from-guest: when the next frame was due at the peer
    end_ns        Int64    send time (from-guest: arrival) of the first frame that arrived
                           again; NA = open, nothing ever did
    lost          int64    frames missing in it
    resolution_ns int64    each end is known to within this
    earliest_ns   int64    the break lies between these two:
    latest_ns     int64    what happened here may have caused it
    phase         str      (after ``attribute``) the phase in which it began
    candidates    object   (after ``attribute``) a tuple of every phase in which it may have
                           begun, in order of time, such as ("unplug", "pre-copy")
    ============  =======  ==================================================================

``phases``: contiguous, in time order; the first begins and the last ends with the data

    ============== ======  ==================================================================
    name            str    before, quiesce, unplug, pre-copy, stop, resume, replug, after
    start_ns        int64
    end_ns          int64
    uncertainty_ns  int64  of start_ns, in relation to the peer's clock
    gap_ns          int64  the part of it for which nobody looked; the rest is the clocks'
    ============== ======  ==================================================================
"""
