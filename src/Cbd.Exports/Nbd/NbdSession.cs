namespace Cbd.Exports.Nbd;

/// <summary>
/// What a client negotiated for the transmission phase; the default is the baseline that every client speaks. A
/// connection that is secured during its handshake starts from the default again.
/// </summary>
/// <param name="StructuredReplies">Replies come in chunks with headers of 20 bytes.</param>
/// <param name="ExtendedHeaders">Requests and chunks have headers of 32 bytes; goes before structured replies.</param>
/// <param name="HasAllocation">The metadata context base:allocation was selected.</param>
internal readonly record struct NbdSession(bool StructuredReplies, bool ExtendedHeaders, bool HasAllocation)
{
    /// <summary>Replies are made of chunks.</summary>
    internal bool HasChunks => StructuredReplies || ExtendedHeaders;

    internal uint RequestMagic => ExtendedHeaders ? NbdProtocol.ExtendedRequestMagic : NbdProtocol.RequestMagic;

    /// <summary>What this client is offered beside what the device can.</summary>
    internal NbdTransmissionFlags Flags =>
        (HasChunks ? NbdTransmissionFlags.SendDontFragment : 0) |
        (ExtendedHeaders && HasAllocation ? NbdTransmissionFlags.BlockStatusPayload : 0);
}
