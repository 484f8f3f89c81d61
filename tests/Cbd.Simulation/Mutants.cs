using Cbd.Channels;

namespace Cbd.Simulation;

/// <summary>The shipped policy with one safety rule off. The simulator must catch each of them.</summary>
public static class Mutants
{
    public readonly struct NoSequenceCheck : IProtocolPolicy
    {
        public static bool CheckSequence => false;
        public static bool CheckCrc => true;
        public static bool CheckEpoch => true;
        public static bool KeepCredits => true;
        public static bool CopyOnce => true;
        public static bool ClaimBySwap => true;
        public static bool WaitForDrain => true;
    }

    public readonly struct NoCrcCheck : IProtocolPolicy
    {
        public static bool CheckSequence => true;
        public static bool CheckCrc => false;
        public static bool CheckEpoch => true;
        public static bool KeepCredits => true;
        public static bool CopyOnce => true;
        public static bool ClaimBySwap => true;
        public static bool WaitForDrain => true;
    }

    public readonly struct NoEpochCheck : IProtocolPolicy
    {
        public static bool CheckSequence => true;
        public static bool CheckCrc => true;
        public static bool CheckEpoch => false;
        public static bool KeepCredits => true;
        public static bool CopyOnce => true;
        public static bool ClaimBySwap => true;
        public static bool WaitForDrain => true;
    }

    public readonly struct NoCredits : IProtocolPolicy
    {
        public static bool CheckSequence => true;
        public static bool CheckCrc => true;
        public static bool CheckEpoch => true;
        public static bool KeepCredits => false;
        public static bool CopyOnce => true;
        public static bool ClaimBySwap => true;
        public static bool WaitForDrain => true;
    }

    public readonly struct NoSingleCopy : IProtocolPolicy
    {
        public static bool CheckSequence => true;
        public static bool CheckCrc => true;
        public static bool CheckEpoch => true;
        public static bool KeepCredits => true;
        public static bool CopyOnce => false;
        public static bool ClaimBySwap => true;
        public static bool WaitForDrain => true;
    }

    public readonly struct NoClaimSwap : IProtocolPolicy
    {
        public static bool CheckSequence => true;
        public static bool CheckCrc => true;
        public static bool CheckEpoch => true;
        public static bool KeepCredits => true;
        public static bool CopyOnce => true;
        public static bool ClaimBySwap => false;
        public static bool WaitForDrain => true;
    }

    public readonly struct NoDrain : IProtocolPolicy
    {
        public static bool CheckSequence => true;
        public static bool CheckCrc => true;
        public static bool CheckEpoch => true;
        public static bool KeepCredits => true;
        public static bool CopyOnce => true;
        public static bool ClaimBySwap => true;
        public static bool WaitForDrain => false;
    }
}
