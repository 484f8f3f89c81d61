namespace Cbd.Host.Wanted;

/// <summary>The region is not the one that was asked for by its uuid; the message names both.</summary>
internal sealed class OtherRegionException(string message) : CbdException(CbdErrorKind.Invalid, message);
