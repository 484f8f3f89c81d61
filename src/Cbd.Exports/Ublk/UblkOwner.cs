using Cbd.Exports.Kernel;

namespace Cbd.Exports.Ublk;

/// <summary>
/// Whose a ublk device is, in the word that the kernel keeps for servers: magic "CBD" (24 bits), whether process ids
/// count (8 bits: 1 or 0), process id (32 bits).
/// </summary>
/// <param name="ProcessId">The daemon; 0 if it runs in a process id namespace of its own, whose numbers mean nothing to others.</param>
internal readonly record struct UblkOwner(int ProcessId)
{
    private const ulong Magic = 0x434244;

    /// <summary>This process.</summary>
    internal static UblkOwner Self { get; } = new(OwnerProcess.SelfInFirstNamespace.Id);

    internal ulong Encode() => (Magic << 40) | (ProcessId != 0 ? 1ul << 32 : 0) | (uint)ProcessId;

    /// <summary>False if the word is not one of ours.</summary>
    internal static bool TryDecode(ulong word, out UblkOwner owner)
    {
        bool hasProcess = (word >> 32 & 0xff) == 1;
        owner = new UblkOwner(hasProcess ? (int)(uint)word : 0);
        return word >> 40 == Magic && owner.Encode() == word;
    }

    /// <summary>
    /// The process has ended for sure. A number that was given to another process counts as alive: then the device stays
    /// until that ends too.
    /// </summary>
    internal bool IsGone => new OwnerProcess(ProcessId, StartTicks: null, OwnerProcess.FirstNamespace).IsGone;
}
