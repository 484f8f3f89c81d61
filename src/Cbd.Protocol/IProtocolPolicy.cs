namespace Cbd.Protocol;

/// <summary>
/// The safety rules of the protocol, one switch each. The shipped code knows only <see cref="SafePolicy"/>, whose
/// constants the compiler folds away; the mutation gate of the tests runs the same code with one rule off at a time
/// and must see the simulator catch it.
/// </summary>
internal interface IProtocolPolicy
{
    /// <summary>A line counts only when it carries the expected sequence.</summary>
    static abstract bool CheckSequence { get; }

    /// <summary>A line or payload counts only when its CRC holds.</summary>
    static abstract bool CheckCrc { get; }

    /// <summary>A line counts only in the epoch for which it was stored.</summary>
    static abstract bool CheckEpoch { get; }

    /// <summary>No more commands outstanding than the depth.</summary>
    static abstract bool KeepCredits { get; }

    /// <summary>What is validated is the private copy, and that copy is what is used.</summary>
    static abstract bool CopyOnce { get; }

    /// <summary>Claim words change by compare-and-swap only.</summary>
    static abstract bool ClaimBySwap { get; }

    /// <summary>A handler attaches a new epoch, and detaches, only when what it started before is drained.</summary>
    static abstract bool WaitForDrain { get; }

    /// <summary>A reset raises the channel's epoch, in the claim word, before the new one is used.</summary>
    static abstract bool RaiseEpoch { get; }

    /// <summary>Nothing new is issued by any queue of a device while one of them repeats what was in flight.</summary>
    static abstract bool HoldWhileReissuing { get; }

    /// <summary>A flush covers only writes that were acknowledged before it was sent.</summary>
    static abstract bool CoverOnlyEarlierWrites { get; }

    /// <summary>A new session with another durability id fails a device that has uncovered writes.</summary>
    static abstract bool CheckDurabilityId { get; }

    /// <summary>No queue attaches in a new durability generation before all queues have left the old one.</summary>
    static abstract bool EnterTogether { get; }

    /// <summary>A failed flush fails every later write and flush.</summary>
    static abstract bool LatchFailedFlush { get; }

    /// <summary>A failed flush is in the backend's entry before its completion is posted.</summary>
    static abstract bool LatchBeforeCompletion { get; }

    /// <summary>Without O_DIRECT a flush that was in flight when its session ended fails, and is not repeated.</summary>
    static abstract bool FailBufferedFlush { get; }

    /// <summary>A channel that closes is free only when its handler has drained, or is proven over.</summary>
    static abstract bool FreeOnlyDrained { get; }

    /// <summary>What a host had that is not proven dead goes to nobody.</summary>
    static abstract bool QuarantineWithoutProof { get; }

    /// <summary>A session is taken over only when the old one is over, or an operator vouches for it.</summary>
    static abstract bool TakeOverNeedsProof { get; }

    /// <summary>A backend that can be written to has one blkdev.</summary>
    static abstract bool OneWriter { get; }

    /// <summary>The writer word of a blkdev is freed after all its channels.</summary>
    static abstract bool FreeWriterAfterChannels { get; }

    /// <summary>The newest valid copy of a body is never overwritten.</summary>
    static abstract bool KeepNewestBody { get; }

    /// <summary>A take-over keeps the copy that is the record until its own body is whole.</summary>
    static abstract bool KeepRecord { get; }

    /// <summary>A body counts only in the epoch of its entry's claim.</summary>
    static abstract bool RefuseStaleBody { get; }

    /// <summary>A blkdev that has become active looks at its backend again.</summary>
    static abstract bool LookAtBackendAfterActive { get; }

    /// <summary>Whoever has claimed an entry looks at its own host's claim word again.</summary>
    static abstract bool LookAtHostAfterClaim { get; }

    /// <summary>A host becomes active only when no other has its name.</summary>
    static abstract bool LookAtNames { get; }

    /// <summary>A device fails when its backend has become another disk.</summary>
    static abstract bool RefuseOtherDisk { get; }

    /// <summary>A claim of a backend or blkdev that stands still before it is active ends with proof that its host stores no more.</summary>
    static abstract bool EndClaimingWithProof { get; }

    /// <summary>A device fails when the disk of its backend was in memory and began anew.</summary>
    static abstract bool RefuseMemoryAnew { get; }

    /// <summary>A larger size is on the disk's medium before anybody is told of it.</summary>
    static abstract bool GrowDiskFirst { get; }

    /// <summary>A host that was cleared registers anew only when nothing of its old claim is at a disk or drives a channel.</summary>
    static abstract bool QuietBeforeRejoin { get; }

    /// <summary>Requests that were given up while the backend was away are drained before anything newer is issued.</summary>
    static abstract bool DrainGivenUp { get; }

    /// <summary>Starting a disk that has a record as a backend takes that over, instead of being another backend.</summary>
    static abstract bool TakeOverOwnRecord { get; }

    /// <summary>A failed flush stays latched when this host was cleared and offers the disk again.</summary>
    static abstract bool KeepLatchAnew { get; }

    /// <summary>A host gives its entry back only when its devices and backends have stopped.</summary>
    static abstract bool StopBeforeLeave { get; }

    /// <summary>A host becomes active only when no other one beats with its uuid under another boot id.</summary>
    static abstract bool LookForTwins { get; }

    /// <summary>A backend becomes active only when no other host has begun with its disk at the same moment.</summary>
    static abstract bool LookForRivals { get; }

    /// <summary>A device of a record goes to the backend that has its disk, whichever has its id.</summary>
    static abstract bool FollowDisk { get; }

    /// <summary>A backend of a record serves the recorded disk alone, whatever is at its path.</summary>
    static abstract bool OpenWantedDiskOnly { get; }

    /// <summary>A record goes on in its region alone, until an operator confirms another one.</summary>
    static abstract bool RefuseOtherRegion { get; }

    /// <summary>Nothing starts of the record of another machine.</summary>
    static abstract bool RefuseForeignRecord { get; }

    /// <summary>What was being started when the daemon died, and was never answered, is wanted no more.</summary>
    static abstract bool UndoStarts { get; }

    /// <summary>What was being stopped when the daemon died is wanted no more.</summary>
    static abstract bool FinishStops { get; }

    /// <summary>What has failed for good is not started again by a next life.</summary>
    static abstract bool KeepFailed { get; }

    /// <summary>What could not be started is tried again.</summary>
    static abstract bool TryWantedAgain { get; }

    /// <summary>What is held is started by a verb alone.</summary>
    static abstract bool KeepHeld { get; }

    /// <summary>A start is answered only when it is recorded.</summary>
    static abstract bool AnswerOnlyRecorded { get; }

    /// <summary>Who stops what the record keeps learns that it may return.</summary>
    static abstract bool WarnOfKeptStops { get; }

    /// <summary>What was being started at three deaths in a row is not started again.</summary>
    static abstract bool GiveUpDeadly { get; }

    /// <summary>A disk of which nothing tells whether it is the wanted one is taken for it only when an operator says so.</summary>
    static abstract bool ConfirmUncertain { get; }

    /// <summary>A forced stop that its daemon did not live to finish is finished by the next: blkdevs do not wait for what was stopped.</summary>
    static abstract bool FinishForcedStops { get; }

    /// <summary>A writable disk is not started in a region while blkdevs of another region wait for it on this machine.</summary>
    static abstract bool KeepDiskInRegion { get; }

    /// <summary>A blkdev that outlives its process is an orphan after the death of its host, and nobody's.</summary>
    static abstract bool KeepOrphan { get; }

    /// <summary>An adoption moves the writer word of the backend to its own epoch.</summary>
    static abstract bool AdoptMovesWriter { get; }

    /// <summary>Nothing is adopted, or taken for gone, while a dead claim of the own host is not cleared.</summary>
    static abstract bool WaitForOwnDead { get; }

    /// <summary>A new durability id is recorded only when the old one has been judged, by all queues.</summary>
    static abstract bool JudgeBeforeStore { get; }

    /// <summary>An orphan is adopted by the host that left it alone, for the attachment that it was.</summary>
    static abstract bool AdoptOnlyOwnUuid { get; }
}

/// <summary>All rules hold.</summary>
internal readonly struct SafePolicy : IProtocolPolicy
{
    public static bool CheckSequence => true;
    public static bool CheckCrc => true;
    public static bool CheckEpoch => true;
    public static bool KeepCredits => true;
    public static bool CopyOnce => true;
    public static bool ClaimBySwap => true;
    public static bool WaitForDrain => true;
    public static bool RaiseEpoch => true;
    public static bool HoldWhileReissuing => true;
    public static bool CoverOnlyEarlierWrites => true;
    public static bool CheckDurabilityId => true;
    public static bool EnterTogether => true;
    public static bool LatchFailedFlush => true;
    public static bool LatchBeforeCompletion => true;
    public static bool FailBufferedFlush => true;
    public static bool FreeOnlyDrained => true;
    public static bool QuarantineWithoutProof => true;
    public static bool TakeOverNeedsProof => true;
    public static bool OneWriter => true;
    public static bool FreeWriterAfterChannels => true;
    public static bool KeepNewestBody => true;
    public static bool KeepRecord => true;
    public static bool RefuseStaleBody => true;
    public static bool LookAtBackendAfterActive => true;
    public static bool LookAtHostAfterClaim => true;
    public static bool LookAtNames => true;
    public static bool RefuseOtherDisk => true;
    public static bool EndClaimingWithProof => true;
    public static bool RefuseMemoryAnew => true;
    public static bool GrowDiskFirst => true;
    public static bool QuietBeforeRejoin => true;
    public static bool DrainGivenUp => true;
    public static bool KeepLatchAnew => true;
    public static bool TakeOverOwnRecord => true;
    public static bool StopBeforeLeave => true;
    public static bool LookForTwins => true;
    public static bool LookForRivals => true;
    public static bool FollowDisk => true;
    public static bool OpenWantedDiskOnly => true;
    public static bool RefuseOtherRegion => true;
    public static bool RefuseForeignRecord => true;
    public static bool UndoStarts => true;
    public static bool FinishStops => true;
    public static bool KeepFailed => true;
    public static bool TryWantedAgain => true;
    public static bool KeepHeld => true;
    public static bool AnswerOnlyRecorded => true;
    public static bool WarnOfKeptStops => true;
    public static bool GiveUpDeadly => true;
    public static bool ConfirmUncertain => true;
    public static bool FinishForcedStops => true;
    public static bool KeepDiskInRegion => true;
    public static bool KeepOrphan => true;
    public static bool AdoptMovesWriter => true;
    public static bool WaitForOwnDead => true;
    public static bool JudgeBeforeStore => true;
    public static bool AdoptOnlyOwnUuid => true;
}
