namespace Cbd;

/// <summary>
/// The safety rules of the protocol, one switch each. The shipped code knows only <see cref="SafePolicy"/>, whose
/// constants the compiler folds away; the mutation gate of the tests runs the same code with one rule off at a time
/// and must see the simulator catch it.
/// </summary>
public interface IProtocolPolicy
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

    /// <summary>A handler attaches a new epoch only when the old one is drained.</summary>
    static abstract bool WaitForDrain { get; }
}

/// <summary>All rules hold.</summary>
public readonly struct SafePolicy : IProtocolPolicy
{
    public static bool CheckSequence => true;
    public static bool CheckCrc => true;
    public static bool CheckEpoch => true;
    public static bool KeepCredits => true;
    public static bool CopyOnce => true;
    public static bool ClaimBySwap => true;
    public static bool WaitForDrain => true;
}
