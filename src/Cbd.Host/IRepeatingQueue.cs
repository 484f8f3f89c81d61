using Cbd.Blocks;

namespace Cbd.Host;

/// <summary>A queue that does again what an earlier process of its device had taken and not answered.</summary>
internal interface IRepeatingQueue
{
    /// <summary>Nobody executes requests now, or nobody ever will again.</summary>
    bool IsBackendAway { get; }

    /// <summary>
    /// As <see cref="IBlockQueue.TrySubmit"/>, in the order in which the requests were taken. A flush, or a write that must be durable, that was
    /// taken in a session which may have lost acknowledged writes gets EIO, whenever it is issued.
    /// </summary>
    /// <param name="request">The request.</param>
    /// <param name="session"><see cref="Attachments.AttachmentLife.Session"/> when that process took it.</param>
    bool TryRepeat(in BlockRequest request, ulong session);
}
