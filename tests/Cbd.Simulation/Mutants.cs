namespace Cbd.Simulation;

/// <summary>
/// The shipped policy with one safety rule off, which <see cref="Off"/> names for the present thread. One type, so that
/// the protocol is compiled once for all mutants.
/// </summary>
internal readonly struct MutantPolicy : IProtocolPolicy
{
    [ThreadStatic]
    private static string? s_off;

    /// <summary>The rule that does not hold in runs of this thread; null: all hold.</summary>
    public static string? Off
    {
        get => s_off;
        set => s_off = value;
    }

    public static bool CheckSequence => Holds(nameof(CheckSequence));
    public static bool CheckCrc => Holds(nameof(CheckCrc));
    public static bool CheckEpoch => Holds(nameof(CheckEpoch));
    public static bool KeepCredits => Holds(nameof(KeepCredits));
    public static bool CopyOnce => Holds(nameof(CopyOnce));
    public static bool ClaimBySwap => Holds(nameof(ClaimBySwap));
    public static bool WaitForDrain => Holds(nameof(WaitForDrain));
    public static bool RaiseEpoch => Holds(nameof(RaiseEpoch));
    public static bool HoldWhileReissuing => Holds(nameof(HoldWhileReissuing));
    public static bool CoverOnlyEarlierWrites => Holds(nameof(CoverOnlyEarlierWrites));
    public static bool CheckDurabilityId => Holds(nameof(CheckDurabilityId));
    public static bool EnterTogether => Holds(nameof(EnterTogether));
    public static bool LatchFailedFlush => Holds(nameof(LatchFailedFlush));
    public static bool LatchBeforeCompletion => Holds(nameof(LatchBeforeCompletion));
    public static bool FailBufferedFlush => Holds(nameof(FailBufferedFlush));
    public static bool FreeOnlyDrained => Holds(nameof(FreeOnlyDrained));
    public static bool QuarantineWithoutProof => Holds(nameof(QuarantineWithoutProof));
    public static bool TakeOverNeedsProof => Holds(nameof(TakeOverNeedsProof));
    public static bool OneWriter => Holds(nameof(OneWriter));
    public static bool FreeWriterAfterChannels => Holds(nameof(FreeWriterAfterChannels));
    public static bool KeepNewestBody => Holds(nameof(KeepNewestBody));
    public static bool KeepRecord => Holds(nameof(KeepRecord));
    public static bool RefuseStaleBody => Holds(nameof(RefuseStaleBody));
    public static bool LookAtBackendAfterActive => Holds(nameof(LookAtBackendAfterActive));
    public static bool LookAtHostAfterClaim => Holds(nameof(LookAtHostAfterClaim));
    public static bool LookAtNames => Holds(nameof(LookAtNames));
    public static bool RefuseOtherDisk => Holds(nameof(RefuseOtherDisk));
    public static bool EndClaimingWithProof => Holds(nameof(EndClaimingWithProof));
    public static bool RefuseMemoryAnew => Holds(nameof(RefuseMemoryAnew));
    public static bool GrowDiskFirst => Holds(nameof(GrowDiskFirst));
    public static bool QuietBeforeRejoin => Holds(nameof(QuietBeforeRejoin));
    public static bool StopBeforeLeave => Holds(nameof(StopBeforeLeave));
    public static bool DrainGivenUp => Holds(nameof(DrainGivenUp));
    public static bool KeepLatchAnew => Holds(nameof(KeepLatchAnew));
    public static bool TakeOverOwnRecord => Holds(nameof(TakeOverOwnRecord));
    public static bool LookForTwins => Holds(nameof(LookForTwins));
    public static bool LookForRivals => Holds(nameof(LookForRivals));
    public static bool FollowDisk => Holds(nameof(FollowDisk));
    public static bool OpenWantedDiskOnly => Holds(nameof(OpenWantedDiskOnly));
    public static bool RefuseOtherRegion => Holds(nameof(RefuseOtherRegion));
    public static bool RefuseForeignRecord => Holds(nameof(RefuseForeignRecord));
    public static bool UndoStarts => Holds(nameof(UndoStarts));
    public static bool FinishStops => Holds(nameof(FinishStops));
    public static bool KeepFailed => Holds(nameof(KeepFailed));
    public static bool TryWantedAgain => Holds(nameof(TryWantedAgain));
    public static bool KeepHeld => Holds(nameof(KeepHeld));
    public static bool AnswerOnlyRecorded => Holds(nameof(AnswerOnlyRecorded));
    public static bool WarnOfKeptStops => Holds(nameof(WarnOfKeptStops));
    public static bool GiveUpDeadly => Holds(nameof(GiveUpDeadly));
    public static bool ConfirmUncertain => Holds(nameof(ConfirmUncertain));
    public static bool FinishForcedStops => Holds(nameof(FinishForcedStops));
    public static bool KeepDiskInRegion => Holds(nameof(KeepDiskInRegion));
    public static bool KeepOrphan => Holds(nameof(KeepOrphan));
    public static bool AdoptMovesWriter => Holds(nameof(AdoptMovesWriter));
    public static bool WaitForOwnDead => Holds(nameof(WaitForOwnDead));
    public static bool JudgeBeforeStore => Holds(nameof(JudgeBeforeStore));
    public static bool AdoptOnlyOwnUuid => Holds(nameof(AdoptOnlyOwnUuid));

    /// <summary>
    /// The rule that no policy has, because the programs keep it: a session is claimed only with the disk's lock.
    /// </summary>
    public const string DiskLock = "DiskLock";

    /// <summary>Whether <see cref="DiskLock"/> is off in runs of this policy.</summary>
    internal static bool IgnoresDiskLock<TPolicy>() => typeof(TPolicy) == typeof(MutantPolicy) && s_off == DiskLock;

    private static bool Holds(string rule) => s_off != rule;
}
