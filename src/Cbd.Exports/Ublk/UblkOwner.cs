using System.Buffers.Binary;
using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;

namespace Cbd.Exports.Ublk;

/// <summary>
/// Whose a ublk device is, in the word that the kernel keeps for servers. Of one that ends with its daemon: magic "CBD" (24 bits), whether
/// process ids count (8 bits: 1 or 0), process id (32 bits). Of one that outlives it: magic "CL" (16 bits), <see cref="UblkLife"/> (48 bits).
/// </summary>
/// <param name="ProcessId">The daemon; 0 if it runs in a process id namespace of its own, whose numbers mean nothing to others.</param>
/// <param name="Life">What outlives its daemon; null if it ends with it.</param>
internal readonly record struct UblkOwner(int ProcessId, UblkLife? Life = null)
{
    private const ulong Magic = 0x434244;
    private const ulong LifeMagic = 0x434c;

    /// <summary>This process.</summary>
    internal static UblkOwner Self { get; } = new(OwnerProcess.SelfInFirstNamespace.Id);

    /// <summary>This process, or the life if there is one.</summary>
    internal static UblkOwner Of(AttachmentLife? life) => life is null ? Self : new UblkOwner(0, UblkLife.Of(life));

    internal ulong Encode() => Life is { } life
        ? (LifeMagic << 48) | ((ulong)life.Host << 24) | life.Id
        : (Magic << 40) | (ProcessId != 0 ? 1ul << 32 : 0) | (uint)ProcessId;

    /// <summary>False if the word is not one of ours.</summary>
    internal static bool TryDecode(ulong word, out UblkOwner owner)
    {
        if (word >> 48 == LifeMagic)
        {
            owner = new UblkOwner(0, new UblkLife((uint)(word >> 24) & UblkLife.Mask, (uint)word & UblkLife.Mask));
            return true;
        }

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

/// <summary>
/// Host and life of an attachment, as far as there is room for them: 24 random bits of each. Whether two are the same is asked of the devices of
/// one machine alone, and the number in the device's record tells its own from all others.
/// </summary>
/// <param name="Host">The last bits of the uuid of the state directory's host.</param>
/// <param name="Id">The last bits of the life.</param>
internal readonly record struct UblkLife(uint Host, uint Id)
{
    internal const uint Mask = 0xff_ffff;

    internal static UblkLife Of(AttachmentLife life) => new(OfHost(life.Host), OfId(life.Id));

    /// <summary>It was left by a daemon of this state directory.</summary>
    /// <param name="lives">Of this daemon; null if it has no lives.</param>
    internal bool IsLeftover(AttachmentLives? lives)
    {
        (uint host, uint id) = this;
        return lives is not null && lives.IsLeftover(uuid => OfHost(uuid) == host, life => OfId(life) == id);
    }

    private static uint OfHost(Guid host)
    {
        Span<byte> bytes = stackalloc byte[16];
        if (!host.TryWriteBytes(bytes))
            throw new InvalidOperationException("a GUID has 16 bytes");
        return BinaryPrimitives.ReadUInt32BigEndian(bytes[12..]) & Mask;
    }

    private static uint OfId(ulong life) => (uint)life & Mask;
}
